"""Judge answers, entities, outliers, classes or translations, from predictions of anyone or from a checkpoint.

    python tools/eval_nlp.py qa --predictions answers.json --truth dev-v1.1.json --language en
    python tools/eval_nlp.py ner --predictions found.conll --truth test.conll
    python tools/eval_nlp.py ood --predictions scores.jsonl other.jsonl --pictures FOLDER
    python tools/eval_nlp.py classification --predictions table.tsv
    python tools/eval_nlp.py translation --predictions found.de --truth test.de
    python tools/eval_nlp.py ood --config nlp/ood/grammar_mlkd --checkpoint F.pth --save scores.jsonl --json result.json

Predictions are, for qa, a JSON object of answers by question id; for ner, a file in CoNLL's columns; for ood, one JSON
object a line with score and outlier (true or false); for classification, a table (.tsv, .csv, .jsonl) with the columns
prediction and label; for translation, one sentence a line, plain or .gz, as in the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck_core.engine import commands
from limbeck_core.engine.quickstart import text_table
from limbeck_core.errors import DataError, LimbeckError
from limbeck_nlp.data import read_table
from limbeck_nlp.evaluation import bleu, classification, ner, ood, qa

Figures = dict[str, Any]
_WITH_TRUTH = {"qa": "SQuAD's JSON", "ner": "CoNLL's columns", "translation": "one sentence a line"}


def main(arguments: list[str] | None = None) -> int:
    """Parse, evaluate, print a table, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for task, description in (
        ("qa", "exact match and F1 of answers"),
        ("ner", "precision, recall and F1 of entities"),
        ("ood", "AUROC, AUPR and FPR95 of outlier scores"),
        ("classification", "accuracy, F1 and Matthews correlation of classes"),
        ("translation", "BLEU and chrF of translations, by sacrebleu"),
    ):
        _add_arguments(tasks.add_parser(task, help=description, description=description), task)
    options = parser.parse_args(arguments)
    from_run = options.config is not None and options.checkpoint is not None
    if from_run == bool(options.predictions):
        parser.error("give --predictions, or --config and --checkpoint")
    if options.task in _WITH_TRUTH and not from_run and options.truth is None:
        parser.error(f"{options.task} needs --truth beside --predictions")
    try:
        found = _from_run(options) if from_run else _from_files(options)
        if options.task == "ood" and options.pictures:
            _draw(options)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_table(found))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _add_arguments(parser: argparse.ArgumentParser, task: str) -> None:
    several = "+" if task == "ood" else None
    parser.add_argument("--predictions", type=Path, nargs=several, metavar="FILE", help="predictions of anyone")
    parser.add_argument("--config", metavar="C", help="a config whose test data and model are judged instead")
    parser.add_argument("--checkpoint", type=Path, metavar="F", help="weights of that config's student")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="change values of the config")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    if task in _WITH_TRUTH:
        parser.add_argument("--truth", type=Path, metavar="FILE", help=f"the truth: {_WITH_TRUTH[task]}")
    if task == "translation":
        parser.add_argument(
            "--tokenize", default="13a", help="tokenizer of sacrebleu (default: 13a; zh, ja-mecab, ...)"
        )
    if task == "qa":
        parser.add_argument("--language", default="", help="language of the contexts, for articles and segmentation")
    if task == "ood":
        parser.add_argument("--save", type=Path, metavar="FILE.jsonl", help="write the checkpoint's scores there")
        parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw histograms and ROC curves there")


def _from_run(options: argparse.Namespace) -> Figures:
    overrides = [*options.cfg_options, "+log_level=ERROR"]
    if options.task == "ood" and (options.save or options.pictures):
        options.save = options.save or options.pictures / "scores.jsonl"
        overrides.append(f"+test_evaluator.results={options.save}")
    return commands.evaluate(options.config, options.checkpoint, data_root=options.data_root, overrides=overrides)


def _from_files(options: argparse.Namespace) -> Figures:
    if options.task == "ood":
        runs = {_name(path): ood.evaluate(*ood.read_scores(path)) for path in options.predictions}
        return next(iter(runs.values())) if len(runs) == 1 else runs
    if options.task == "ner":
        return ner.evaluate(options.predictions, options.truth)
    if options.task == "translation":
        return dict(bleu.evaluate(options.predictions, options.truth, tokenize=options.tokenize))
    if options.task == "qa":
        return qa.evaluate(_answers(options.predictions), options.truth, language=options.language)
    rows = list(read_table(options.predictions, ["prediction", "label"]))
    return dict(classification.evaluate([row[0] for row in rows], [row[1] for row in rows]))


def _answers(path: Path) -> Mapping[str, str]:
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(answers, Mapping):
        raise DataError(f"{path} must hold an object of answers by question id, got {type(answers).__name__}")
    return {str(identity): str(answer) for identity, answer in answers.items()}


def _name(path: Path) -> str:
    return str(path.with_suffix(""))


def _draw(options: argparse.Namespace) -> None:
    files = options.predictions or [options.save]
    runs = {_name(path): ood.read_scores(path) for path in files}
    options.pictures.mkdir(parents=True, exist_ok=True)
    for number, scores in enumerate(runs.values()):
        ending = "" if len(runs) == 1 else f"_{number + 1}"
        ood.draw_scores(*scores).savefig(options.pictures / f"scores{ending}.png", dpi=150, bbox_inches="tight")
    ood.draw_roc(runs).savefig(options.pictures / "roc.png", dpi=150, bbox_inches="tight")


def _table(found: Figures) -> str:
    """One line a number; mappings (entity types, several files) as rows of their own."""
    plain = [[name, _shown(value)] for name, value in found.items() if isinstance(value, (int, float, str))]
    parts = [text_table(["measure", "value"], plain)] if plain else []
    rows: dict[str, Mapping[str, Any]] = found if not plain else dict(found.get("types") or {})
    if rows:
        columns = list(next(iter(rows.values())))
        cells = [[name, *(_shown(row.get(column, "")) for column in columns)] for name, row in rows.items()]
        parts.append(text_table(["", *columns], cells))
    return "\n\n".join(parts)


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
