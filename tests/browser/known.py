"""What ComfyUI's editor says in its console by itself."""

KNOWN = (
    # Files that a new user has none of.
    "/user.css",
    "/favicon.ico",
    "/userdata?dir=workflows",
    "/userdata?dir=subgraphs",
    "/userdata/comfy.templates.json",
    "/userdata/workflows%2F.index.json",
    # A help page in the user's language is asked for first.
    "/en.md",
    # What ComfyUI 0.3.75 has no route for yet.
    "/api/jobs",
    "/templates/index_logo.json",
    "Jobs API",
    "JobsApiError",
    # Its own deprecations, and its own faults.
    "The legacy queue/history menu is deprecated",
    "ComfyApp.open_maskeditor is deprecated",
    "Invalid layout total size",
    "input.link is deprecated",
    "Cannot read properties of undefined (reading 'id')\n    at onChange",
)
"""Parts of messages, or of the addresses that they are about, which both frontends give on this host without the pack:
`test_editor.py` has the program that finds them.
"""
