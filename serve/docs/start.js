/** Swagger UI over this endpoint's OpenAPI document; no document is sent to a validator. */

SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
