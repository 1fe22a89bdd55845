"""`torchrun -m dits_adapter.training.joint`: the command `dits-adapter train-joint` in every process."""

import sys

from accelerate import PartialState  # type: ignore[import-untyped]

from dits_adapter.cli import main

if __name__ == "__main__":
    code = main(["train-joint", *sys.argv[1:]])
    PartialState().destroy_process_group()
    sys.exit(code)
