"""The HTTP service on the broker's machine: FastAPI on uvicorn, a bearer token for each request.

`application.py` has what every route shares, `files.py` the routes of files, `shelf.py` where those
are on the disk, `connections.py` what a connection may not do, `keeping.py` what is done beside the
requests, `program.py` the process.
"""
