// Elements. Whatever comes from the server becomes text, never markup.

export const $ = (id) => document.getElementById(id)

// h makes an element. Of the properties, onX are listeners, class and the like
// attributes; null and false are left out.
export function h(name, props, ...children) {
  const e = document.createElement(name)
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === null || v === undefined || v === false) continue
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v)
    else e.setAttribute(k, v === true ? '' : String(v))
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : String(c))))
  return e
}

export function put(e, ...children) {
  e.replaceChildren(...children.flat().filter((c) => c !== null && c !== undefined && c !== false))
}

export function text(e, t) {
  t = String(t)
  if (e.textContent !== t) e.textContent = t
}

// once runs f only when what it shows has changed, so that a reader's place,
// focus and selection stay.
const shown = new WeakMap()
export function once(e, what, f) {
  const now = JSON.stringify(what)
  if (shown.get(e) === now) return
  shown.set(e, now)
  f()
}

let silence
export function say(t) {
  const e = $('said')
  e.hidden = false
  text(e, t)
  clearTimeout(silence)
  silence = setTimeout(() => { e.hidden = true }, 6000)
}

// ask before something that cannot be taken back.
export function ask(title, words, yes) {
  const d = $('ask')
  text($('ask-title'), title)
  text($('ask-text'), words)
  text($('ask-yes'), yes)
  d.returnValue = 'no'
  d.showModal()
  return new Promise((done) => d.addEventListener('close', () => done(d.returnValue === 'yes'), { once: true }))
}

// send asks the server; what it refuses is said, and gives null.
export async function send(method, path, body) {
  try {
    const r = await fetch(path, {
      method,
      headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
    const type = r.headers.get('Content-Type') ?? ''
    const got = type.includes('json') ? await r.json() : {}
    if (r.ok) return got
    say([got.detail ?? `The server answered ${r.status}.`, got.hint].filter(Boolean).join(' '))
  } catch {
    say('The server cannot be reached.')
  }
  return null
}
