import { $, ask, h, once, put, say, send } from './dom.js'
import * as fmt from './format.js'
import { sign } from './headline.js'

const open = new Set() // tables whose partitions are shown

const head = ['table', 'verdict', 'oldest', 'waiting', 'empty in', 'lag p50', 'lag p99', 'in/s', 'out/s', 'batch', 'saved', 'hits', 'read', 'dead', '']

async function pause(name, paused) {
  if (!paused && !(await ask(`Pause ${name}?`, 'Its writes go on being accepted, and wait in Redis until it is resumed or a cap is reached.', 'Pause'))) return
  const got = await send('POST', `admin/v1/tables/${encodeURIComponent(name)}/${paused ? 'resume' : 'pause'}`)
  if (got) say(got.paused ? `${name} is paused.` : `${name} is flushed again.`)
}

function partitions(t) {
  return (t.partitions ?? []).map((p) => h('tr', { class: 'sub' },
    h('td', {}, `partition ${p.partition}`),
    h('td', { class: 'left' }, `epoch ${p.epoch}, ${p.watermark} of ${p.seq} committed`),
    h('td', {}, fmt.duration(p.oldest_unflushed_ms)),
    h('td', {}, fmt.count(p.backlog_rows)),
    h('td', { colspan: head.length - 4, class: 'left' }, fmt.bytes(p.backlog_bytes))))
}

export function tables(st, again) {
  const all = Object.entries(st.tables ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
  once($('tables'), [all, [...open], st.read_only], () => {
    const rows = all.flatMap(([name, t]) => {
      const show = open.has(name)
      const toggle = () => { show ? open.delete(name) : open.add(name); again(); $('tables').querySelector(`[data-table="${CSS.escape(name)}"]`)?.focus() }
      return [
        h('tr', {},
          h('td', { class: 'name' }, h('button', { type: 'button', class: 'link', 'data-table': name, 'aria-expanded': String(show), onclick: toggle }, `${show ? '▾' : '▸'} ${name}`)),
          h('td', { class: `left ${t.verdict ?? ''}` }, t.verdict ? sign(t.verdict) : fmt.none),
          h('td', {}, fmt.duration(t.oldest_unflushed_ms)),
          h('td', {}, fmt.short(t.backlog?.rows)),
          h('td', {}, t.backlog?.rows ? fmt.duration((t.time_to_empty_s ?? NaN) * 1000) : 'now'),
          h('td', {}, fmt.duration(t.durability_lag_ms?.p50)),
          h('td', {}, fmt.duration(t.durability_lag_ms?.p99)),
          h('td', {}, fmt.short(t.rates?.in_rows_per_s)),
          h('td', {}, fmt.short(t.rates?.out_rows_per_s)),
          h('td', {}, fmt.short(t.batch_rows)),
          h('td', {}, fmt.percent(t.coalescing_ratio)),
          h('td', {}, fmt.percent(t.cache?.hit_rate)),
          h('td', {}, fmt.duration(t.cache?.effective_latency_ms)),
          h('td', {}, fmt.count(t.dead_letters)),
          h('td', {}, st.read_only || (t.strategy && t.strategy !== 'write-behind') ? t.strategy ?? '' : h('button', { type: 'button', onclick: () => pause(name, Boolean(t.paused)) }, t.paused ? 'Resume' : 'Pause'))),
        t.verdict && t.verdict !== 'ok' ? h('tr', { class: 'sub' }, h('td', { colspan: head.length, class: 'wide' }, t.why)) : null,
        show ? partitions(t) : [],
      ]
    })
    const held = document.activeElement?.dataset?.table
    put($('tables'), h('thead', {}, h('tr', {}, head.map((t) => (t ? h('th', { scope: 'col' }, t) : h('td', {}))))), h('tbody', {}, rows.flat().filter(Boolean)))
    if (held) $('tables').querySelector(`[data-table="${CSS.escape(held)}"]`)?.focus()
  })
}
