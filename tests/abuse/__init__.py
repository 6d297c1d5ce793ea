"""What strangers may try: hand-made HTTP/2 and HTTP/1.1 against a server of one's own, bounded in count and time."""
