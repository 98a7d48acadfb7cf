/** The extension's own texts in the user's language: the English text is the key, as with gettext. */

/** @type {Record<string, string>} */
let words = {}

/**
 * Takes the texts of a language, as they stand under "sd3local" in locales/<language>/main.json.
 * @param {Record<string, string>} translations
 */
export function speak(translations) {
  words = translations
}

/**
 * @param {string} text English, with {names} of values
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole))
}
