import { $, ask, say, send, text } from './dom.js'
import * as fmt from './format.js'
import { Feed } from './feed.js'
import { Charts } from './charts.js'
import { headline, ledger } from './headline.js'
import { tables } from './tables.js'
import { events, letters, storage, workers } from './panels.js'
import { lookup, lookupTables } from './lookup.js'

const themes = ['system', 'light', 'dark']
const root = document.documentElement

function theme(t) {
  if (t === 'system') delete root.dataset.theme
  else root.dataset.theme = t
  text($('theme'), `Theme: ${t}`)
  try { localStorage.setItem('headpond-theme', t) } catch { /* private mode */ }
}

function stored() {
  try { return localStorage.getItem('headpond-theme') ?? 'system' } catch { return 'system' }
}

theme(themes.includes(stored()) ? stored() : 'system')
const feed = new Feed()
const charts = new Charts(feed)
$('theme').addEventListener('click', () => {
  theme(themes[(themes.indexOf(root.dataset.theme ?? 'system') + 1) % themes.length])
  charts.build()
})
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => charts.build())

function show() {
  const st = feed.status
  if (!st || document.hidden) return
  const names = Object.keys(st.tables ?? {}).sort()
  charts.tables(names)
  lookupTables(names)
  headline(st, feed)
  ledger(st)
  tables(st, show)
  workers(st)
  letters(st)
  storage(st)
  events(st)
  $('readonly').hidden = !st.read_only
  $('kill').hidden = !st.local_stack?.can_kill_flusher || Boolean(st.read_only)
}

// link says how fresh the page is. Figures that are old are greyed, and kept.
function link() {
  const e = $('link')
  const old = Date.now() - feed.heard
  const lost = feed.heard > 0 && (!feed.live || old > 4000)
  e.className = lost ? 'badge lost' : feed.live ? 'badge live' : 'badge'
  text(e, lost ? `✕ reconnecting, last heard ${fmt.duration(old)} ago` : feed.live ? '● live' : 'connecting')
  $('main').classList.toggle('stale', lost)
}

feed.addEventListener('status', show)
feed.addEventListener('link', link)
setInterval(link, 1000)
document.addEventListener('visibilitychange', () => { show(); charts.update() })
$('kill').addEventListener('click', async () => {
  if (!(await ask('Kill the flusher?', 'It gets SIGKILL, and is started again after five seconds. The lag climbs and falls, and the ledger closes: nothing is lost.', 'Kill'))) return
  const got = await send('POST', 'admin/v1/local-stack/flusher/kill?down=5s')
  if (got) say(`Process ${got.killed_pid} was killed.`)
})
lookup()
feed.open()
