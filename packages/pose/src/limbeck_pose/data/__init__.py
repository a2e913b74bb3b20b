"""People and their crops: annotation files, geometry, augmentation."""

from limbeck_pose.data.augmentation import FINE, Augmentation
from limbeck_pose.data.crops import Crop
from limbeck_pose.data.people import People, Person, keypoints_of, read_people

__all__ = ["FINE", "Augmentation", "Crop", "People", "Person", "keypoints_of", "read_people"]
