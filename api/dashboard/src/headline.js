import { $, h, once, put, text } from './dom.js'
import * as fmt from './format.js'

const signs = { ok: '✓ OK', behind: '↗ Behind', stalled: '■ Stalled', blocked: '✕ Blocked' }
export const sign = (verdict) => signs[verdict] ?? '?'

const sum = (st, f) => Object.values(st.tables ?? {}).reduce((n, t) => n + (f(t) ?? 0), 0)
const most = (st, f) => Object.values(st.tables ?? {}).reduce((n, t) => (typeof f(t) === 'number' ? Math.max(n ?? 0, f(t)) : n), null)

export function headline(st, feed) {
  text($('age'), fmt.duration(st.oldest_unflushed_ms))
  const v = $('verdict')
  text(v, sign(st.verdict))
  v.className = `pill ${st.verdict}`
  text($('why'), st.why)
  document.title = `${sign(st.verdict)} · ${fmt.duration(st.oldest_unflushed_ms)} · Headpond`
  const all = feed.series.get('') ?? {}
  const last = (c) => all[c]?.at(-1) ?? null
  const tiles = [
    ['waiting', `${fmt.short(st.backlog?.rows)} rows`],
    ['of size', fmt.bytes(st.backlog?.bytes)],
    ['empty in', st.backlog?.rows ? fmt.duration((last('time_to_empty_s') ?? NaN) * 1000) : 'now'],
    ['in', `${fmt.short(sum(st, (t) => t.rates?.in_rows_per_s))} rows/s`],
    ['out', `${fmt.short(sum(st, (t) => t.rates?.out_rows_per_s))} rows/s`],
    ['durability lag p50', fmt.duration(most(st, (t) => t.durability_lag_ms?.p50))],
    ['durability lag p99', fmt.duration(most(st, (t) => t.durability_lag_ms?.p99))],
    ['hit rate', fmt.percent(last('hit_rate'))],
    ['effective read latency', fmt.duration(last('effective_latency_ms'))],
    ['dead letters', fmt.count(st.dead_letters)],
    ['an answer survives', st.durability ?? fmt.none],
    ['Postgres may be down for', st.pressure?.postgres_may_be_down_for_ms == null ? fmt.none : fmt.duration(st.pressure.postgres_may_be_down_for_ms)],
  ]
  once($('tiles'), tiles, () => put($('tiles'), tiles.map(([k, value]) => h('div', {}, h('dt', {}, k), h('dd', {}, value)))))
}

// ledger shows the equation, and whether it closes.
export function ledger(st) {
  const l = st.ledger ?? {}
  const parts = [['committed', l.committed], ['pending', l.pending], ['dead-lettered', l.dead_lettered], ['coalesced', l.coalesced], ['lost', l.lost ?? 0]]
  const closes = parts.reduce((n, [, v]) => n + (v ?? 0), 0) === l.accepted
  once($('ledger'), l, () => put(
    $('ledger'),
    h('span', {}, h('small', {}, 'accepted'), fmt.count(l.accepted)),
    h('i', {}, '='),
    parts.flatMap(([name, v], i) => [i > 0 ? h('i', {}, '+') : null, h('span', name === 'lost' && v > 0 ? { class: 'error' } : {}, h('small', {}, name), fmt.count(v))]),
    h('b', { class: closes ? 'ok' : 'error' }, closes ? '✓ it closes' : '✕ it does not close'),
  ))
}
