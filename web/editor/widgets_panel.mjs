/**
 * The room at a node's end in which its helpers speak. It is no input: neither workflows nor runs know of it, and where
 * nobody says anything it takes no room.
 */

import { app } from "./comfy.mjs"
import { element } from "./dom.mjs"

/** @import { Node, Widget } from "./widgets_node.mjs" */

/** What the canvas puts between two widgets, in pixels. */
const GAP = 4

/**
 * Nodes 2.0 go on showing what an earlier node with this one's number had in its place, such as the one from before an
 * undo: that makes way for `root`, which says in its `data-panel` which of the node's places it has.
 * @param {Node} node
 * @param {HTMLElement} root
 */
export function mount({ graph, id }, root) {
  if (!graph || graph !== app.canvas.graph) return
  const shown = document.querySelector(`[data-node-id="${id}"] [data-panel="${root.dataset.panel}"]`)
  if (shown !== null && shown !== root) shown.replaceWith(root)
}

/** Mounts all places of the nodes in view. */
export function mountAll() {
  for (const node of app.canvas.graph?.nodes ?? []) {
    for (const { element: root } of node.widgets ?? []) if (root?.dataset.panel) mount(node, root)
  }
}

export class Panel {
  #height = 0
  #body = element("div", { className: "sd3local-panel-body" })
  #root = element("div", { className: "sd3local-panel" }, this.#body)
  /** @type {Node} */
  #node
  /** @type {Set<Widget>} */
  #greyed = new Set()
  /** @type {Element | null} */
  #list = null

  /**
   * @param {Node} node
   * @param {string} [name] of this panel, where the node has more than one
   */
  constructor(node, name = "sd3local.panel") {
    this.#node = node
    this.#root.dataset.panel = name
    const options = { serialize: false, hideOnZoom: false, margin: 0, getValue: () => "", setValue: () => {} }
    const widget = node.addDOMWidget(name, "sd3local_panel", this.#root, options)
    widget.serialize = false
    // The newest frontend lists it among the node's properties, by this name.
    widget.label = "SD3 Local"
    // A fixed height, with nothing of the room that texts share.
    widget.computeLayoutSize = undefined
    widget.computeSize = () => [0, this.#height - GAP]
    // In Nodes 2.0 a press would drag the node.
    for (const name of ["pointerdown", "dblclick"]) {
      this.#root.addEventListener(name, (event) => {
        const pressed = /** @type {Element} */ (event.target)
        if (pressed.closest("select, button, summary, pre, [role=slider]")) event.stopPropagation()
      })
    }
    const earlier = node.onResize
    node.onResize = function (...args) {
      earlier?.apply(this, args)
      fit()
    }
    const fit = () => this.fit()
    // Nodes 2.0 makes rows anew, such as after a visit to another graph.
    new ResizeObserver(() => this.#dim()).observe(this.#root)
  }

  /**
   * A new place of its own, below the earlier ones.
   * @param {string} className
   */
  section(className) {
    const made = element("div", { className })
    this.#body.append(made)
    return made
  }

  /**
   * Shows which of the node's widgets have no effect.
   * @param {Set<Widget>} widgets
   */
  grey(widgets) {
    for (const widget of this.#node.widgets ?? []) {
      const greyed = widgets.has(widget)
      if (greyed === this.#greyed.has(widget)) continue
      // A disabled text would be hidden from view on the canvas of the newest frontend.
      if (widget.element) widget.element.toggleAttribute("data-sd3local-greyed", greyed)
      else widget.disabled = greyed
    }
    this.#greyed = widgets
    this.#dim()
    this.#node.graph?.setDirtyCanvas?.(true, true)
  }

  /**
   * In Nodes 2.0 the rows are dimmed themselves: the first of them don't look at `disabled`, later ones hardly show it.
   */
  #dim() {
    const list = this.#root.closest(".lg-node-widgets")
    if (list === null) return
    if (list !== this.#list) {
      this.#list = list
      // Rows come and go, such as those of advanced inputs.
      new MutationObserver(() => this.#dim()).observe(list, { childList: true, subtree: true })
    }
    const rows = /** @type {HTMLElement[]} */ ([...list.querySelectorAll(".lg-node-widget")])
    // Where rows have no names they stand for the widgets in their order.
    const shown = (this.#node.widgets ?? []).filter(({ options }) => !options?.hidden && !options?.canvasOnly)
    const greyed = new Set([...this.#greyed].map(({ name }) => name))
    rows.forEach((row, index) => {
      const name = row.dataset.widgetName ?? (rows.length === shown.length ? shown[index].name : "")
      row.toggleAttribute("data-sd3local-greyed", greyed.has(name))
    })
  }

  /** Takes the room that is needed now, no more and no less. */
  fit() {
    mount(this.#node, this.#root)
    const height = this.#measured()
    if (height === this.#height) return
    const node = this.#node
    // In Nodes 2.0 the browser lays nodes out.
    const onCanvas = !app.extensionManager.setting.get("Comfy.VueNodes.Enabled")
    // A node that was made larger by hand keeps its size.
    const tight = node.size[1] <= node.computeSize()[1] + 1
    this.#height = height
    if (onCanvas && node.graph) {
      const needed = node.computeSize()[1]
      if (tight || node.size[1] < needed) node.setSize([node.size[0], needed])
    }
    node.graph?.setDirtyCanvas?.(true, true)
  }

  #measured() {
    if ([...this.#body.children].every((child) => child.childNodes.length === 0)) return 0
    // A copy, because the panel itself may be out of sight, or in Nodes 2.0 of another width.
    const copy = element("div", { className: "sd3local-panel sd3local-panel-measured" }, this.#body.cloneNode(true))
    copy.style.width = `${this.#node.size[0]}px`
    document.body.append(copy)
    const height = copy.scrollHeight
    copy.remove()
    return Math.ceil(height)
  }
}
