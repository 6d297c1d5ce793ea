"""A machine's day around a running server: signals at any moment, Ray's own processes gone, full disks, a pause."""
