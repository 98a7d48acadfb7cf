"""The hosted API's wire: pictures and files that come in and go out, and requests as graphs."""
