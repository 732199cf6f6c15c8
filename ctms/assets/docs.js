"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: false,
  tryItOutEnabled: true,
  // No badge from a validator on the internet.
  validatorUrl: null,
});
