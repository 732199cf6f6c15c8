"use strict";

window.addEventListener("load", () => {
  const base = document.documentElement.dataset.content_root;
  SwaggerUIBundle({
    url: `${base}_static/openapi.json`,
    dom_id: "#swagger-ui",
    deepLinking: false,
    docExpansion: "list",
    // The site has no service behind it: operations are shown, not sent.
    supportedSubmitMethods: [],
    validatorUrl: null,
  });
});
