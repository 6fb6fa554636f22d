"""What everyone may ask over plain HTTP: certificate status and certificates of authorities."""
