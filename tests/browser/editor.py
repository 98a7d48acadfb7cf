"""ComfyUI's editor in a browser, used as a person uses it: nodes are searched for, slots are dragged, buttons clicked.

What a person reads off the screen is read off the editor's own graph where the screen is a canvas.
"""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.browser.known import KNOWN
from tests.comfy_host import ComfyHost

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page

READY = """() => window.app?.extensionManager && window.app.canvas?.graph
  && !document.querySelector("[data-testid=app-loading-overlay] *, .p-blockui-mask")"""
RENDERERS = {"classic": False, "nodes2": True}


class Editor:
    """A page of a browser with ComfyUI in it. `complaints` are the console's errors and warnings that are not KNOWN."""

    def __init__(self, page: Page, host: ComfyHost, renderer: str, screenshots: Path):
        self.page = page
        self.host = host
        self.renderer = renderer
        self.screenshots = screenshots
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error.stack}"))

    @property
    def vue(self) -> bool:
        return RENDERERS[self.renderer]

    # The page

    def open(self, settings: Mapping[str, Any] | None = None) -> Editor:
        """Loads the editor with a blank workflow. `settings` are kept by the host, like those of any user."""
        own = {
            "Comfy.TutorialCompleted": True,
            "Comfy.VueNodes.Enabled": self.vue,
            "Comfy.Graph.CanvasInfo": False,
            "Comfy.Workflow.WarnBlueprintOverwrite": False,
        }
        self.host.read("/settings", {**own, **(settings or {})})
        self.page.goto(self.host.url)
        self.wait_until_ready()
        self.new()
        return self

    def reload(self) -> None:
        self.page.reload()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.page.wait_for_function(READY)
        # The workflow of the last time is opened after that.
        self.page.wait_for_function("() => window.app.extensionManager.workflow?.activeWorkflow?.changeTracker")

    def shot(self, name: str) -> Path:
        """A screenshot, to be looked at."""
        path = self.screenshots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def command(self, name: str) -> None:
        """Runs a command of the editor's, such as a menu's entry or a key would."""
        self.page.evaluate("name => window.app.extensionManager.command.execute(name)", name)

    def graph(self, program: str, given: Any = None) -> Any:
        """What a function of the graph, in JavaScript, returns."""
        return self.page.evaluate(f"given => ({program})(window.app.rootGraph ?? window.app.graph, given)", given)

    # Nodes

    def new(self) -> None:
        """A blank workflow in a tab of its own."""
        self.command("Comfy.NewBlankWorkflow")
        self.page.wait_for_function("() => (window.app.rootGraph ?? window.app.graph).nodes.length === 0")

    def add(self, name: str) -> int:
        """Adds a node by the search that a double click on the canvas opens. Returns the node's id."""
        before = self.graph("graph => graph.nodes.map((node) => node.id)")
        search = self.search()
        search.fill(name)
        options = self.page.locator("[role=option]:visible")
        result = options.filter(has=self.page.get_by_text(name, exact=True)).first
        result.wait_for()
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(
            "before => (window.app.rootGraph ?? window.app.graph).nodes.length > before", arg=len(before)
        )
        search.wait_for(state="hidden")
        # In the newest frontend the node hangs at the pointer until a click puts it down.
        if self.graph("(graph) => graph.nodes.some((node) => node.flags?.ghost)"):
            self.page.mouse.down()
            self.page.mouse.up()
            self.page.wait_for_function(
                "() => !(window.app.rootGraph ?? window.app.graph).nodes.some((node) => node.flags?.ghost)"
            )
        return self.graph("(graph, before) => graph.nodes.find((node) => !before.includes(node.id)).id", before)

    def make(self, kind: str) -> int:
        """A new node, without the search."""
        program = "(graph, kind) => { const node = window.LiteGraph.createNode(kind); graph.add(node); return node.id }"
        return self.graph(program, kind)

    def search(self) -> Locator:
        """The field of the search for nodes, opened by a double click on the canvas."""
        from playwright.sync_api import TimeoutError as TooLate

        field = self.page.locator("input:focus")
        place = self.empty_place()
        for _ in range(5):
            self.page.mouse.move(*place)
            self.settle()
            # On a busy machine the second click can be too late to be one of a double click.
            self.page.mouse.dblclick(*place)
            with suppress(TooLate):
                field.wait_for(timeout=3000)
                return field
        raise AssertionError("a double click on the canvas opens no search")

    def empty_place(self) -> tuple[float, float]:
        """A place of the canvas without a node, at which there is room for one: the view is moved there."""
        self.page.evaluate(
            """() => {
              const { canvas } = window.app
              const right = (canvas.graph.nodes ?? []).map(({ pos, size }) => pos[0] + size[0])
              canvas.ds.scale = 1
              canvas.ds.offset = right.length ? [400 - Math.max(...right), 300] : [0, 0]
              canvas.setDirty(true, true)
            }"""
        )
        return 700.0, 300.0

    def place_of(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the graph is on the page."""
        return tuple(
            self.page.evaluate(
                """([x, y]) => {
                  const { ds, canvas } = window.app.canvas
                  const { left, top } = canvas.getBoundingClientRect()
                  return [(x + ds.offset[0]) * ds.scale + left, (y + ds.offset[1]) * ds.scale + top]
                }""",
                [x, y],
            )
        )

    def show(self, node: int, *others: int) -> None:
        """Moves the view to the nodes, between what the panels at both sides cover."""
        self.graph(
            """(graph, ids) => {
              const nodes = ids.map((id) => graph.getNodeById(id))
              const [x, y] = [0, 1].map((axis) => Math.min(...nodes.map(({ pos }) => pos[axis])))
              window.app.canvas.ds.scale = 1
              window.app.canvas.ds.offset = [(ids.length > 1 ? 300 : 700) - x, 250 - y]
              window.app.canvas.setDirty(true, true)
            }""",
            [node, *others],
        )
        self.settle()

    def settle(self) -> None:
        """Lets the editor draw what has changed."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait_for_nodes(self, count: int) -> None:
        self.page.wait_for_function(
            "count => (window.app.rootGraph ?? window.app.graph).nodes.length === count", arg=count
        )

    def title_place(self, node: int) -> tuple[float, float]:
        x, y = self.graph("(graph, id) => [...graph.getNodeById(id).pos]", node)
        return self.place_of(x + 70, y - 14)

    def select(self, node: int) -> None:
        """Clicks on a node's title."""
        self.show(node)
        self.page.mouse.click(*self.title_place(node))
        self.page.wait_for_function(
            "id => [...window.app.canvas.selectedItems].some((item) => item.id === id)", arg=node
        )

    def menu(self, node: int) -> Locator:
        """The entries of a node's menu, opened by a right click."""
        self.select(node)
        self.page.mouse.click(*self.title_place(node), button="right")
        entries = self.page.locator(".litecontextmenu .litemenu-entry, [role=menuitem]")
        entries.first.wait_for()
        return entries

    def set(self, node: int, values: Mapping[str, Any]) -> None:
        """Sets widgets, with all that the editor does when a person sets them."""
        self.graph(
            """(graph, [id, values]) => {
              const node = graph.getNodeById(id)
              for (const [name, value] of Object.entries(values)) {
                const widget = node.widgets.find((one) => one.name === name)
                if (!widget) throw new Error(`${node.type} has no widget ${name}`)
                widget.value = value
                widget.callback?.(value, window.app.canvas, node)
              }
            }""",
            [node, dict(values)],
        )

    def values(self, node: int) -> dict[str, Any]:
        """All of a node's widgets that a workflow keeps, by name."""
        return self.graph(
            """(graph, id) => Object.fromEntries(
              graph.getNodeById(id).widgets.filter((one) => one.serialize !== false).map((one) => [one.name, one.value])
            )""",
            node,
        )

    def connect(self, source: int, output: str, target: int, name: str) -> None:
        """Links two nodes, as a drag would."""
        self.graph(
            """(graph, [source, output, target, name]) => {
              const [from, to] = [graph.getNodeById(source), graph.getNodeById(target)]
              const slot = from.outputs.findIndex((one) => (one.label ?? one.name) === output || one.name === output)
              if (slot < 0 || !from.connect(slot, to, name)) throw new Error(`no link ${output} -> ${name}`)
            }""",
            [source, output, target, name],
        )

    def drag(self, source: int, output: int, target: int, slot: int) -> None:
        """Links two nodes by dragging from the one's output to the other's input, both by their place in the node."""
        self.show(source, target)
        start, end = self._slot_place(source, "out", output), self._slot_place(target, "in", slot)
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=8)
        self.page.mouse.up()
        self.settle()

    def _slot_place(self, node: int, side: str, slot: int) -> tuple[float, float]:
        if self.vue:
            box = self.page.locator(f"[data-node-id='{node}'] [data-slot-key$='-{side}-{slot}']").bounding_box()
            assert box is not None
            return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        get = "getOutputPos" if side == "out" else "getInputPos"
        return self.place_of(
            *self.graph(f"(graph, [id, slot]) => [...graph.getNodeById(id).{get}(slot)]", [node, slot])
        )

    # Workflows

    def state(self) -> dict[str, Any]:
        """What a saved workflow says of values and links: by node its type and values, and all links."""
        return shape(self.graph("graph => graph.serialize()"))

    def save_as(self, name: str) -> None:
        """Saves the workflow under a new name: Ctrl+S, the name, Enter."""
        # The newest frontend saves what the last click has left, not what was set since then.
        self.page.mouse.click(*self.empty_place())
        self.settle()
        self.page.keyboard.press("Control+s")
        field = self.page.locator("[role=dialog] input:visible").last
        field.wait_for()
        field.fill(name)
        self.page.keyboard.press("Enter")
        field.wait_for(state="hidden")
        self.page.wait_for_function(
            "name => window.app.extensionManager.workflow.activeWorkflow.path.endsWith(`${name}.json`)", arg=name
        )

    def reopen(self, name: str) -> None:
        """Opens a saved workflow from the sidebar."""
        with self.tab("workflows"):
            self.page.locator(".sidebar-content-container").get_by_text(name, exact=False).last.click()
            self.page.wait_for_function(
                "name => window.app.extensionManager.workflow.activeWorkflow.path.endsWith(`${name}.json`)", arg=name
            )

    @contextmanager
    def tab(self, tab: str) -> Iterator[Locator]:
        """A tab of the sidebar, open from `with` to its end: `workflows`, `node-library`, or one of the pack's."""
        self.toggle_tab(tab, True)
        content = self.page.locator(".side-bar-panel, .sidebar-content-container").first
        content.wait_for()
        yield content
        self.toggle_tab(tab, False)

    def toggle_tab(self, tab: str, wanted: bool) -> None:
        self.page.evaluate(
            """([tab, wanted]) => {
              const { sidebarTab } = window.app.extensionManager
              if ((sidebarTab.activeSidebarTabId === tab) !== wanted) sidebarTab.toggleSidebarTab(tab)
            }""",
            [tab, wanted],
        )

    def drop(self, files: Sequence[Path], at: tuple[float, float] = (800.0, 500.0)) -> None:
        """Drops files on the canvas."""
        contents = [
            [file.name, mimetypes.guess_type(file.name)[0] or "", base64.b64encode(file.read_bytes()).decode()]
            for file in files
        ]
        self.page.evaluate(
            """([files, [clientX, clientY]]) => {
              const dataTransfer = new DataTransfer()
              for (const [name, type, content] of files) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))
                dataTransfer.items.add(new File([bytes], name, { type }))
              }
              const target = document.elementFromPoint(clientX, clientY)
              for (const type of ["dragenter", "dragover", "drop"]) {
                const options = { bubbles: true, cancelable: true, dataTransfer, clientX, clientY }
                target.dispatchEvent(new DragEvent(type, options))
              }
            }""",
            [contents, list(at)],
        )

    # Runs

    def run(self, timeout: float = 120.0) -> dict[str, Any]:
        """Clicks on Run and waits for the end. Returns ComfyUI's record of the run."""
        known = set(self.host.get("/history"))
        self.page.get_by_test_id("queue-button").get_by_role("button").or_(
            self.page.locator("button[data-testid=queue-button]")
        ).first.click()
        deadline = int(timeout * 10)
        for _ in range(deadline):
            new = [entry for key, entry in self.host.get("/history").items() if key not in known]
            if new and new[0]["status"]["completed"] is not None and new[0]["status"]["messages"]:
                return new[0]
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"no run ended within {timeout:.0f} s:\n{self.host.log_end()}")

    def picture_of(self, node: int) -> tuple[int, int]:
        """The size of the picture that a node shows in the editor, once it is there."""
        if self.vue:
            self.page.wait_for_function(
                "id => document.querySelector(`[data-node-id='${id}'] img`)?.naturalWidth > 0", arg=node
            )
            program = "id => { const image = document.querySelector(`[data-node-id='${id}'] img`)"
        else:
            self.page.wait_for_function(
                "id => window.app.canvas.graph.getNodeById(id).imgs?.[0]?.naturalWidth", arg=node
            )
            program = "id => { const image = window.app.canvas.graph.getNodeById(id).imgs[0]"
        return tuple(self.page.evaluate(f"{program}; return [image.naturalWidth, image.naturalHeight] }}", node))

    # Help and templates

    def help(self, node: int) -> Locator:
        """A node's help page, opened by the button above the node."""
        self.select(node)
        self.page.get_by_test_id("info-button").click()
        page = self.page.locator(".node-help-content")
        page.locator("h1").first.wait_for()
        return page

    def templates(self) -> Locator:
        """The cards of the pack's templates, in the open template browser."""
        self.command("Comfy.BrowseTemplates")
        dialog = self.page.locator("[role=dialog]", has=self.page.get_by_test_id("template-workflows-content"))
        dialog.get_by_text(self.host.pack_folder, exact=True).first.click()
        return dialog.locator("[data-testid^='template-workflow-']")

    # The console

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        address = message.location.get("url") or ""
        # Without a network the editor misses the addresses of its maker's.
        if address and urlsplit(address).netloc not in ("", urlsplit(self.host.url).netloc):
            return
        text = f"{message.text} ({address})"
        if not any(known in text for known in KNOWN):
            self.complaints.append(f"{message.type}: {text}")


def shape(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """What a workflow's user has made: by node its type and values, and all links as (from, slot, to, slot, type)."""
    nodes = {str(node["id"]): (node["type"], node.get("widgets_values") or []) for node in workflow["nodes"]}
    links = sorted(
        [link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"], link["type"]]
        if isinstance(link, dict)
        else link[1:]
        for link in workflow["links"]
    )
    return json.loads(json.dumps({"nodes": nodes, "links": links}))
