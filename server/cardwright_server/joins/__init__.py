"""Where one domain is what another one asks for: small, without rules of their own."""
