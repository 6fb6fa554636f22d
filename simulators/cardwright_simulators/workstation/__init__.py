"""Many workstations in one process against one server: for load, and for tests of what stands before the server.

They are gRPC clients with a card, the guard and nothing else: no daemon, no prompts, no readers. What a daemon costs
is measured with daemons; this is to find out what a server bears.
"""

from .errors import LoadRefused
from .fleet import Fleet, Plan
from .identity import Identity, checked_address
from .report import Part, Report, Times
from .tasks import Named, Task, read_names, read_tasks

__all__ = [
    "Fleet",
    "Identity",
    "LoadRefused",
    "Named",
    "Part",
    "Plan",
    "Report",
    "Task",
    "Times",
    "checked_address",
    "read_names",
    "read_tasks",
]
