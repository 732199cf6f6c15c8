// sphinxcontrib-mermaid imports a module. The bundle is a script that sets a global variable, and draws by itself when
// the page has loaded, unless it is told not to.
await new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = new URL("mermaid.tiny.js", import.meta.url);
  script.onload = resolve;
  script.onerror = reject;
  document.head.append(script);
});
globalThis.mermaid.startOnLoad = false;

export default globalThis.mermaid;
