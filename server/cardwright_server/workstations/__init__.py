"""Workstations: enrolment by one-use tokens, certificates that are renewed in time, revocation that closes streams."""
