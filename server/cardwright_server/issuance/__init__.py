"""Certificates: authorities, profiles, issuing, status, revocation lists, OCSP, content signing."""
