"""``python -m limbeck_nlp.translation``: translate the training data of a config with its trained model.

Writes FOLDER/train.source and FOLDER/train.target, from which ``nlp/translation/marian_sequence`` trains a student.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_core.weights import load_weights
from limbeck_nlp.language_models.completions import Filter
from limbeck_nlp.translation.data import ParallelText
from limbeck_nlp.translation.sequences import write_translations


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate a training set.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_nlp.translation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="config of the teacher's own training, such as nlp/translation/marian_teacher")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights of that config's student")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/translations"), help="folder to write to")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")
    parser.add_argument("--beams", type=int, default=5, help="beams of the search (default: 5)")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="exponent of the length (default: 1)")
    parser.add_argument("--batch-size", type=int, default=32, help="sources at a time (default: 32)")
    parser.add_argument(
        "--interpolate", action="store_true", help="take the hypothesis nearest to the reference by BLEU"
    )
    parser.add_argument("--filter", action="store_true", help="leave out copies, repetitions and odd lengths")
    options = parser.parse_args(arguments)
    try:
        counts = run(options)
    except LimbeckError as error:
        print(f"translation: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{count} {reason}" for reason, count in counts.items()))
    return 0


def run(options: argparse.Namespace) -> dict[str, int]:
    """Build model and data of the config, translate, and write both files.

    Args:
        options: As parsed by :func:`main`.

    Returns:
        What :func:`~limbeck_nlp.translation.write_translations` counted.

    Raises:
        ConfigError: if the config trains on anything but parallel text.
    """
    settings = load_config(options.config, overrides=options.cfg_options, data_root=options.data_root)
    data = build(settings.train_dataloader.dataset)
    if not isinstance(data, ParallelText):
        raise ConfigError(f"{options.config} trains on {type(data).__name__}: expected parallel text (ParallelText)")
    teacher = build(settings.model.student)
    load_weights(teacher, options.checkpoint)
    return write_translations(
        teacher,
        data.tokenizer,
        data.sources,
        options.out / "train.source",
        options.out / "train.target",
        target_tokenizer=data.target_tokenizer,
        references=data.targets,
        interpolate=options.interpolate,
        batch_size=options.batch_size,
        max_length=data.max_length,
        beams=options.beams,
        length_penalty=options.length_penalty,
        keep=Filter() if options.filter else None,
    )


if __name__ == "__main__":
    sys.exit(main())
