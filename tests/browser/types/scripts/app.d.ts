/** What the pack uses of ComfyUI's editor, as both frontends that it is tested with have it. */

export interface IWidget {
  name: string
  type: string
  value: any
  label?: string
  disabled?: boolean
  element?: HTMLElement
  serialize?: boolean
  options: Record<string, any>
  callback?: (value: unknown, canvas?: LGraphCanvas, node?: LGraphNode) => void
  computeSize?: (width?: number) => [number, number]
  computeLayoutSize?: unknown
}

export interface NodeInput {
  name: string
  type: string
  link?: number | null
  widget?: { name: string }
}

export interface NodeOutput {
  name: string
  type: string
  links?: number[] | null
}

export interface LGraphNode {
  id: number | string
  type: string
  title: string
  comfyClass?: string
  order: number
  properties: Record<string, unknown>
  pos: [number, number]
  size: [number, number]
  color?: string
  bgcolor?: string
  widgets?: IWidget[]
  inputs?: NodeInput[]
  outputs?: NodeOutput[]
  imgs?: HTMLImageElement[]
  previewMediaType?: string
  graph: LGraph | null
  /** Of a node that stands for one. */
  subgraph?: LGraph
  constructor: { nodeData?: { input?: { required?: Record<string, any>; optional?: Record<string, any> } } }
  onConnectionsChange?: (...args: any[]) => void
  onResize?: (...args: any[]) => void
  setSize(size: [number, number]): void
  computeSize(): [number, number]
  connect(output: number | string, node: LGraphNode, input: number | string): unknown
  findInputSlot(name: string): number
  isInputConnected(slot: number): boolean
  getInputNode(slot: number): LGraphNode | null
  getOutputNodes(slot: number): LGraphNode[] | null
  addDOMWidget(name: string, type: string, element: HTMLElement, options?: Record<string, unknown>): IWidget
}

export interface LGraphGroup {
  pos: [number, number]
  size: [number, number]
}

export interface LGraph {
  nodes: LGraphNode[]
  subgraphs?: Map<string, LGraph>
  getNodeById(id: number | string): LGraphNode | null | undefined
  add(item: LGraphNode | LGraphGroup): unknown
  beforeChange(node?: LGraphNode): void
  afterChange(node?: LGraphNode): void
  setDirtyCanvas(foreground: boolean, background?: boolean): void
  getNodeOnPos(x: number, y: number): LGraphNode | null
}

export interface LGraphCanvas {
  canvas: HTMLCanvasElement
  graph: LGraph | null
  selectedItems: Set<LGraphNode | LGraphGroup>
  emitBeforeChange(): void
  emitAfterChange(): void
  select(item: LGraphNode): void
  deselectAll(): void
  setDirty(foreground: boolean, background?: boolean): void
  convertEventToCanvasOffset(event: MouseEvent): [number, number]
}

export interface SidebarTab {
  id: string
  icon: string
  title: string
  tooltip?: string
  type: "custom"
  render: (container: HTMLElement) => void
  destroy?: () => void
}

interface Message {
  severity: "success" | "info" | "warn" | "error"
  summary: string
  detail?: string
  life?: number
}

/** The newest frontend has a method for each severity, the host's own has `add` alone. */
type Tell = (title: string, options?: { description?: string }) => void

export interface ExtensionManager {
  registerSidebarTab(tab: SidebarTab): void
  setting: { get(id: string): any; set(id: string, value: unknown): Promise<void> }
  command: { execute(id: string): Promise<void> }
  dialog: {
    prompt(options: { title: string; message: string; defaultValue?: string }): Promise<string | null>
    confirm(options: {
      title: string
      message: string
      type?: "default" | "overwrite" | "delete" | "dirtyClose" | "reinstall"
      itemList?: string[]
    }): Promise<boolean | null>
  }
  toast: { add(message: Message): void; success?: Tell; info?: Tell; warning?: Tell; error?: Tell }
}

export interface ComfyApi {
  apiURL(route: string): string
  fileURL(route: string): string
  fetchApi(route: string, options?: RequestInit): Promise<Response>
  addEventListener(type: string, listener: (event: CustomEvent) => void): void
  removeEventListener(type: string, listener: (event: CustomEvent) => void): void
  getUserData(file: string, options?: RequestInit): Promise<Response>
  storeUserData(
    file: string,
    data: unknown,
    options?: { overwrite?: boolean; stringify?: boolean; throwOnError?: boolean; full_info?: boolean }
  ): Promise<Response>
  deleteUserData(file: string): Promise<Response>
  moveUserData(source: string, destination: string, options?: { overwrite?: boolean }): Promise<Response>
  listUserDataFullInfo(dir: string): Promise<{ path: string; size: number; modified: number }[]>
}

export interface MenuItem {
  content: string
  callback?: () => void
  submenu?: { options: MenuItem[] }
}

/** An extension, with the hooks that the pack uses. */
export interface ComfyExtension {
  name: string
  commands?: { id: string; label: string; icon?: string; function: () => void | Promise<void> }[]
  settings?: {
    id: string
    name: string
    tooltip?: string
    category?: string[]
    type: string | (() => HTMLElement)
    defaultValue: unknown
    onChange?: (value: any) => void
  }[]
  menuCommands?: { path: string[]; commands: string[] }[]
  init?(): void | Promise<void>
  setup?(): void | Promise<void>
  nodeCreated?(node: LGraphNode): void
  loadedGraphNode?(node: LGraphNode): void
  getNodeMenuItems?(node: LGraphNode): (MenuItem | null)[]
  getCanvasMenuItems?(canvas: LGraphCanvas): (MenuItem | null)[]
  getSelectionToolboxCommands?(item: unknown): string[]
  afterConfigureGraph?(): void
  onNodeOutputsUpdated?(outputs: Record<string, any>): void
}

export interface ComfyApp {
  api: ComfyApi
  canvas: LGraphCanvas
  graph: LGraph
  /** The newest frontend's name for `graph`. */
  rootGraph?: LGraph
  nodeOutputs?: Record<string, any>
  extensionManager: ExtensionManager
  registerExtension(extension: ComfyExtension): void
  graphToPrompt(): Promise<{ output: Record<string, any>; workflow: Record<string, any> }>
  handleFile(file: File): Promise<void>
  loadApiJson(prompt: Record<string, any>, name: string): void | Promise<void>
  loadGraphData(workflow: unknown, ...options: unknown[]): Promise<void>
}

export const app: ComfyApp

declare global {
  interface Window {
    LiteGraph: {
      createNode(type: string): LGraphNode | null
      LGraphGroup: new (title: string) => LGraphGroup
    }
  }
}
