"""The modules that every job of a run needs.

A process that imports this module, and does nothing else, is what jobs are forked from: the imports
take seconds and most of a job's memory, and so they are paid for once. No thread is running there,
as none of these modules starts one before it computes.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import import_module

# A module that cannot be imported is a job's to report.
for _name in (
    "extracurricular.run.executors",
    "lightning_fabric",
    "torch.fx.experimental.optimization",
):
    with suppress(Exception):
        import_module(_name)

# A collection would write to the pages of all these objects, and so copy them for each job.
gc.collect()
gc.freeze()
