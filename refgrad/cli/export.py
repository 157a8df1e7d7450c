"""Write a run's newest checkpoint as a GPT-2 folder that other programs read; exit code 0 once it is written."""

import argparse
import sys
from pathlib import Path

from refgrad._files import write_bytes


def run(options: argparse.Namespace) -> int:
    """Read the run, write the folder; returns 0.

    Raises ValueError for a run without a good checkpoint and a folder that holds something else than a model, OSError
    where writing fails. Imports here, since these need the `train` extra.
    """
    from refgrad import weights
    from refgrad.train.run.folder import check_folder, load_model
    from refgrad.train.run.restore import CheckpointError
    from refgrad.train.text.tokenizers import BPE_FILES, from_data
    from refgrad.weights.writing import check_target

    folder = Path(options.folder)
    check_folder(folder)
    check_target(folder)
    try:
        loaded = load_model(Path(options.run), lambda text: print(text, file=sys.stderr))
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    from_data(loaded.tokenizer)  # its files are still those of the run
    weights.save(folder, loaded.params, loaded.config)
    for key, name in BPE_FILES.items():
        if key in loaded.tokenizer:
            write_bytes(folder / name, Path(loaded.tokenizer[key]).read_bytes())
    print(f"{options.run}, step {loaded.step:,}: {loaded.config.parameters:,} parameters written to {folder}")
    return 0
