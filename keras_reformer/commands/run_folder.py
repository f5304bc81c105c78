"""Where a run's files lie, and what may be written there."""

import dataclasses
import os
import shutil

from keras_reformer.commands import checkpoints


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of one run's files.

    Args:
        path: str. The folder; it is made by `create`.
    """

    path: str

    @property
    def checkpoint(self):
        return os.path.join(self.path, checkpoints.FILE_NAME)

    @property
    def previous_checkpoint(self):
        return checkpoints.previous_path(self.checkpoint)

    @property
    def log(self):
        return os.path.join(self.path, "log.csv")

    @property
    def metrics(self):
        return os.path.join(self.path, "metrics.json")

    @property
    def model(self):
        return os.path.join(self.path, "model.keras")

    @property
    def sample(self):
        return os.path.join(self.path, "sample.txt")

    @property
    def training_picture(self):
        return os.path.join(self.path, "training.png")

    @property
    def attention_picture(self):
        return os.path.join(self.path, "attention.png")

    @property
    def recall_picture(self):
        return os.path.join(self.path, "recall.png")

    @property
    def tensorboard(self):
        return os.path.join(self.path, "tensorboard")

    def check_free(self, can_resume=True):
        """Refuses to write over an earlier run.

        Args:
            can_resume: bool. Whether the command has `--resume`.

        Raises:
            ValueError: if a file of a run exists.
        """
        existing = [path for path in self._files() if os.path.exists(path)]
        if existing:
            resume = "Go on with that run by --resume, replace"
            raise ValueError(
                f"`{existing[0]}` of an earlier run exists. "
                f"{resume if can_resume else 'Replace'} it by --overwrite, or "
                "choose another --name."
            )

    def create(self):
        """Makes the folder, if it is not there."""
        os.makedirs(self.path, exist_ok=True)

    def clear(self):
        """Removes the files of an earlier run, and no others."""
        for path in self._files():
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)

    def _files(self):
        return [
            self.checkpoint,
            self.previous_checkpoint,
            self.log,
            self.metrics,
            self.model,
            self.sample,
            self.training_picture,
            self.attention_picture,
            self.recall_picture,
            self.tensorboard,
        ]
