import { $, h, put, send } from './dom.js'
import * as fmt from './format.js'

const json = (row) => (row === null || row === undefined ? h('p', { class: 'quiet' }, 'no row') : h('pre', {}, JSON.stringify(row, null, 1)))

const states = {
  pending: 'waits to be flushed', clean: 'cached', gone: 'is remembered as deleted or missing', none: 'nothing is in the buffer',
}

const same = { true: ['ok', '✓ Both are the same.'], false: ['behind', '↗ They differ: what is accepted is not in Postgres yet, or somebody changed it there.'] }

async function row(e) {
  e.preventDefault()
  const table = $('row-table').value
  const r = await send('GET', `admin/v1/tables/${encodeURIComponent(table)}/rows/${encodeURIComponent($('row-key').value)}`)
  if (!r) { put($('found')); return }
  const alone = r.buffer?.state === 'none' && !r.postgres?.error
  const [cls, words] = same[r.same] ?? ['quiet', alone ? 'Nothing waits: the row is what Postgres has.' : 'They cannot be compared now.']
  put($('found'),
    h('p', {}, h('strong', {}, `${r.table} ${r.key}`), ` partition ${r.partition} `, h('span', { class: cls }, words)),
    h('div', { class: 'two' },
      h('div', {}, h('strong', {}, 'Buffer'), h('p', { class: 'quiet' }, states[r.buffer?.state] ?? '', r.buffer?.expires_in_ms ? `, for ${fmt.duration(r.buffer.expires_in_ms)}` : ''), json(r.buffer?.row)),
      h('div', {}, h('strong', {}, 'Postgres'), r.postgres?.error ? h('p', { class: 'error' }, r.postgres.error) : null, json(r.postgres?.row))),
    (r.pending ?? []).length > 0 ? h('div', {}, h('strong', {}, 'Pending, newest first'), h('ul', { class: 'items' }, r.pending.map((p) => h('li', {},
      h('button', { type: 'button', class: 'link', onclick: () => { $('receipt').value = p.receipt; $('receipt-form').requestSubmit() } }, p.receipt), ` ${p.operation}, accepted ${fmt.clock(p.accepted_at)}`)))) : null,
    (r.dead_letters ?? []).map((l) => h('p', { class: 'error' }, `✕ dead letter ${l.id}: ${l.reason}`)))
}

const names = { accepted: 'accepted', in_redis: 'in Redis', picked_up: 'picked up', copied: 'copied', committed: 'committed' }

// waterfall of the steps whose time is known: each from the one before.
function waterfall(steps) {
  const at = steps.map((s) => (s.at ? Date.parse(s.at) : null))
  const known = at.filter((t) => t !== null)
  if (known.length === 0) return null
  const first = Math.min(...known)
  const all = Math.max(Math.max(...known) - first, 1)
  const box = h('div', { class: 'fall' })
  let before = first
  steps.forEach((s, i) => {
    const t = at[i]
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
    svg.setAttribute('viewBox', '0 0 100 10')
    svg.setAttribute('preserveAspectRatio', 'none')
    svg.setAttribute('aria-hidden', 'true')
    if (t !== null) {
      const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
      bar.setAttribute('x', String((100 * (before - first)) / all))
      bar.setAttribute('y', '2')
      bar.setAttribute('height', '6')
      bar.setAttribute('width', String(Math.max((100 * (t - before)) / all, 0.6)))
      svg.append(bar)
      before = t
    }
    box.append(h('span', {}, names[s.name] ?? s.name), svg, h('span', { class: 'quiet' }, t === null ? fmt.none : `+${fmt.duration(t - first)}`))
  })
  return box
}

async function write(e) {
  e.preventDefault()
  const w = await send('GET', `admin/v1/writes/${encodeURIComponent($('receipt').value.trim())}`)
  if (!w) { put($('found')); return }
  put($('found'),
    h('p', {}, h('strong', {}, w.receipt), ` ${w.state}. ${w.detail}`),
    waterfall(w.steps ?? []),
    w.batch ? h('p', { class: 'quiet' }, `Committed with ${fmt.count(w.batch.rows)} rows of its partition (${w.batch.from} to ${w.batch.to}).`) : null,
    w.trace_id ? h('p', { class: 'quiet' }, 'Trace ', h('code', {}, w.trace_id)) : null)
}

export function lookup() {
  $('row-form').addEventListener('submit', row)
  $('receipt-form').addEventListener('submit', write)
}

export function lookupTables(names) {
  const select = $('row-table')
  if (select.dataset.names === JSON.stringify(names)) return
  const was = select.value
  select.dataset.names = JSON.stringify(names)
  put(select, names.map((n) => h('option', { value: n, selected: n === was }, n)))
}
