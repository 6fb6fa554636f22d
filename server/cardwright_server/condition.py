"""How something stands that this process needs and cannot mend: shown to administrators, logged when it changes."""

from __future__ import annotations

import structlog


class Condition:
    """``code``: what is wrong with it, "" for nothing. A change is one line in the log, however often it is said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.code = ""

    def good(self) -> None:
        """It works."""
        if self.code:
            structlog.get_logger().info("part-recovered", action=self.name, code=self.code)
            self.code = ""

    def bad(self, code: str) -> None:
        """It does not."""
        if code != self.code:
            structlog.get_logger().warning("part-failed", action=self.name, code=code)
            self.code = code
