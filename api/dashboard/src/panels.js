import { $, ask, h, once, put, say, send } from './dom.js'
import * as fmt from './format.js'

export function workers(st) {
  const at = Date.parse(st.at)
  const since = (t) => fmt.duration(Math.max(at - Date.parse(t), 0))
  const all = st.flush_workers ?? []
  if (all.length === 0) {
    once($('workers'), 'none', () => put($('workers'), h('p', { class: 'error' }, '✕ No flusher reports. Start one: ', h('code', {}, 'headpond serve --role flusher'))))
    return
  }
  put($('workers'), h('div', { class: 'scroll' }, h('table', { class: 'grid' },
    h('thead', {}, h('tr', {}, ['process', 'does', 'table', 'partitions', 'rows', 'for'].map((t) => h('th', { scope: 'col' }, t)))),
    h('tbody', {}, all.map((w) => h('tr', {},
      h('td', { class: 'name' }, `pid ${w.pid}`), h('td', {}, w.state), h('td', {}, w.table ?? ''), h('td', {}, (w.partitions ?? []).join(', ')),
      h('td', {}, w.rows ? fmt.count(w.rows) : ''), h('td', {}, since(w.since))))))),
  (st.flushers ?? []).map((f) => h('p', { class: 'quiet' },
    `pid ${f.pid}: last commit ${f.last_commit_at ? fmt.clock(f.last_commit_at) : 'none yet'}, breaker ${f.breaker || 'closed'}`,
    f.last_error ? h('span', { class: 'error' }, ` ✕ ${f.last_error}`) : null)))
}

const levels = { ok: '✓', warn: '!', error: '✕' }

function copy(command) {
  return h('button', { type: 'button', onclick: async () => {
    try { await navigator.clipboard.writeText(command); say('Copied.') } catch { say('It cannot be copied here: select it.') }
  } }, 'Copy')
}

export function storage(st) {
  const lines = [
    { level: st.redis?.ok ? 'ok' : 'error', name: 'Redis', message: st.redis?.ok ? 'answers' : st.redis?.detail },
    { level: st.postgres?.ok ? 'ok' : 'error', name: 'PostgreSQL', message: st.postgres?.ok ? 'answers' : st.postgres?.detail },
    ...(st.storage ?? []).filter((l) => l.level !== 'ok'),
  ]
  const fine = (st.storage ?? []).filter((l) => l.level === 'ok')
  const memory = st.pressure?.redis_memory
  const pools = st.pools
  const known = new Set((st.storage ?? []).map((l) => l.message))
  const warnings = (st.warnings ?? []).filter((w) => ![...known].some((k) => k && w.startsWith(k)))
  once($('storage'), [lines, fine, memory, pools?.postgres, warnings], () => put($('storage'), h('ul', { class: 'items' },
    lines.map((l) => h('li', {}, h('strong', { class: l.level }, `${levels[l.level] ?? '?'} ${l.name}`), ` ${l.message}`, l.mend ? h('div', { class: 'actions' }, h('code', {}, l.mend), copy(l.mend)) : null)),
    warnings.map((w) => h('li', {}, h('strong', { class: 'warn' }, '! '), w)),
    memory ? h('li', {}, `Redis holds ${fmt.bytes(memory.used_bytes)} of ${fmt.bytes(memory.max_bytes)} (${memory.policy}); ${fmt.bytes(memory.pinned_bytes)} cannot be evicted; from ${fmt.bytes(memory.limit_bytes)} on writes are refused.`) : null,
    pools?.postgres ? h('li', {}, `This process has ${pools.postgres.total} of ${pools.postgres.max} connections to PostgreSQL (${pools.postgres.idle} idle) and ${pools.redis?.total ?? 0} to Redis.`) : null,
    fine.length > 0 ? h('li', {}, h('details', {}, h('summary', {}, `${fine.length} checks are fine`), h('ul', {}, fine.map((l) => h('li', {}, `${l.name}: ${l.message}`))))) : null)))
}

export function events(st) {
  const all = (st.events ?? []).slice(0, 60)
  once($('events'), all, () => put($('events'), all.length === 0
    ? h('p', { class: 'quiet' }, 'Nothing happened in the last 15 minutes.')
    : h('ul', { class: 'items' }, all.map((e) => h('li', {}, h('span', { class: 'quiet' }, `${fmt.clock(e.at)} `), h('strong', {}, e.kind.replaceAll('_', ' ')), e.table ? ` ${e.table}` : '', ` – ${e.detail}`)))))
}

// letters are asked for when their number changes, and after each action.
let seen = null
export async function letters(st, force) {
  const now = JSON.stringify([st.dead_letters, st.read_only])
  if (seen === now && !force) return
  seen = now
  if (!st.dead_letters) {
    put($('letters'), h('p', { class: 'quiet' }, '✓ None: Postgres took every row.'))
    return
  }
  const got = await send('GET', 'admin/v1/dead-letters?limit=50')
  if (!got) { seen = null; return }
  const act = (method, path, done) => async () => {
    const answer = await send(method, path, method === 'POST' ? {} : undefined)
    if (answer) say(done)
    letters(st, true)
  }
  const query = (g) => `table=${encodeURIComponent(g.table)}&group=${encodeURIComponent(g.group)}`
  const sure = (title, words, yes, f) => async () => { if (await ask(title, words, yes)) await f() }
  put($('letters'), h('ul', { class: 'items' }, (got.groups ?? []).map((g) => h('li', {},
    h('strong', { class: 'error' }, `✕ ${fmt.count(g.dead_letters)} of ${g.table}: ${g.group}`),
    h('p', {}, g.reason),
    h('p', { class: 'quiet' }, `last ${fmt.clock(g.last_at)}; ${g.sample?.message ?? ''}`),
    st.read_only ? null : h('div', { class: 'actions' },
      h('button', { type: 'button', onclick: sure('Replay all of them?', `${fmt.count(g.dead_letters)} rows of ${g.table} are written again, each once. Mend the reason first, or they come back.`, 'Replay',
        act('POST', `admin/v1/dead-letters/replay?${query(g)}`, 'They are replayed.')) }, 'Replay all'),
      h('button', { type: 'button', class: 'danger', onclick: sure('Discard all of them?', `${fmt.count(g.dead_letters)} rows of ${g.table} are deleted for good.`, 'Discard',
        act('DELETE', `admin/v1/dead-letters?${query(g)}`, 'They are discarded.')) }, 'Discard all')),
    h('details', {}, h('summary', {}, 'Rows'), (got.dead_letters ?? []).filter((l) => l.table === g.table && l.group === g.group).map((l) => h('div', {},
      h('p', {}, `${l.operation} ${l.key ?? ''} `, h('span', { class: 'quiet' }, `${l.receipt}, ${fmt.clock(l.dead_lettered_at)}`)),
      h('p', { class: 'quiet' }, l.advice),
      l.row === undefined ? h('p', { class: 'quiet' }, `The row has ${fmt.bytes(l.row_bytes)}.`) : h('pre', {}, JSON.stringify(l.row, null, 1)),
      st.read_only ? null : h('div', { class: 'actions' },
        h('button', { type: 'button', onclick: sure('Replay this row?', `${l.receipt} is written again, once.`, 'Replay', act('POST', `admin/v1/dead-letters/${l.id}/replay`, 'It is replayed.')) }, 'Replay'),
        h('button', { type: 'button', class: 'danger', onclick: sure('Discard this row?', `${l.receipt} is deleted for good.`, 'Discard', act('DELETE', `admin/v1/dead-letters/${l.id}`, 'It is discarded.')) }, 'Discard')))))))))
}
