// sphinxcontrib-mermaid imports a module; the bundle is a script that sets a global.
import "./mermaid.tiny.js";

export default globalThis.mermaid;
