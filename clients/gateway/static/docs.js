// Swagger UI over the gateway's own description, light or dark as the explorer is.

const system = matchMedia("(prefers-color-scheme: dark)");
const darken = () => {
  const theme = document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  document.documentElement.classList.toggle("dark-mode", theme === "dark");
};
system.addEventListener("change", darken);
darken();
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", validatorUrl: null, defaultModelsExpandDepth: 0 });
