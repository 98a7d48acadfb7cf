import js from "@eslint/js"
import globals from "globals"


export default [
  js.configs.recommended,
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/web/**/*.js", "**/web/**/*.mjs"],
    languageOptions: { globals: globals.browser },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-var": "error",
      "prefer-const": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-script-url": "error",
      "no-console": "error",
      "no-extend-native": "error",
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              regex: "scripts/(?!(app|api)\\.js$)|extensions/core",
              message: "Of ComfyUI's own modules app.js and api.js are public; the editor warns of all others."
            }
          ]
        }
      ],
      "no-restricted-syntax": [
        "error",
        {
          selector: "AssignmentExpression > MemberExpression.left MemberExpression[property.name='prototype']",
          message: "No prototype patching: another pack's patch, or the next frontend, breaks it."
        },
        {
          selector: "AssignmentExpression > MemberExpression.left[property.name='prototype']",
          message: "No prototype patching."
        },
        {
          selector:
            "CallExpression[callee.object.name=/^(Object|Reflect)$/] > MemberExpression.arguments:first-child" +
            "[property.name='prototype']",
          message: "No prototype patching."
        },
        {
          selector: "AssignmentExpression > MemberExpression.left[object.name=/^(window|globalThis|self)$/]",
          message: "Nothing is written into the page's globals."
        }
      ]
    }
  },
  {
    files: ["**/unit/*.mjs"],
    languageOptions: { globals: { ...globals.node } }
  }
]
