"""``make demo`` and ``cardwright demo``: the main job from an empty folder to finished cards, on this machine alone."""
