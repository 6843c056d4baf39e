"""Run launch/process.py with FSDP2 on CPUs, with the step that accelerate 1.15 takes only on GPUs.

There, AcceleratorState makes FSDP of MULTI_GPU and its like, not of MULTI_CPU; all else of FSDP2 works on gloo.
"""

import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from longreward.training.launch import worker as launched

plain = AcceleratorState.__init__


def with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
    plain(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


AcceleratorState.__init__ = with_fsdp

if __name__ == "__main__":
    launched.main(Path(sys.argv[1]))
