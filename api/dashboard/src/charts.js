import uPlot from 'uplot'
import { $, h, put, text } from './dom.js'
import * as fmt from './format.js'

// What is drawn: each chart's lines are columns of the history.
const charts = [
  { title: 'Age of the oldest unflushed write', value: fmt.duration, lines: [['oldest_ms', 'oldest']] },
  { title: 'Durability lag, accepted to committed', value: fmt.duration, lines: [['lag_p50_ms', 'p50'], ['lag_p99_ms', 'p99']] },
  { title: 'Rows per second', value: fmt.short, lines: [['in_rows_per_s', 'in'], ['out_rows_per_s', 'out']] },
  { title: 'Backlog, rows', value: fmt.short, lines: [['backlog_rows', 'rows']] },
  { title: 'Time to empty the backlog', value: (s) => fmt.duration(s === null ? null : s * 1000), lines: [['time_to_empty_s', 'empty in']] },
  { title: 'Batch size, and rows saved per second', value: fmt.short, lines: [['batch_rows', 'batch'], ['saved_rows_per_s', 'saved/s']] },
  { title: 'Reads: hit rate', value: fmt.percent, lines: [['hit_rate', 'hit rate']], range: [0, 1] },
  { title: 'Reads: effective latency', value: fmt.duration, lines: [['effective_latency_ms', 'latency']] },
]

const spans = [[60, '1 min', 'minute'], [300, '5 min', '5 minutes'], [900, '15 min', '15 minutes']]

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

// resolved is a colour as the canvas takes it: light-dark() is no such.
function resolved(name) {
  const probe = h('span', { hidden: true })
  document.body.append(probe)
  probe.style.color = `var(${name})`
  const colour = getComputedStyle(probe).color
  probe.remove()
  return colour || css(name)
}

// A second line is dashed: never colour alone.
const dashes = [[], [6, 4]]

export class Charts {
  span = 300
  table = ''
  plots = []
  zoomed = false

  constructor(feed) {
    this.feed = feed
    put($('spans'), spans.map(([s, label]) => h('button', { type: 'button', 'data-span': s, onclick: () => this.show(s) }, label)))
    $('chart-table').addEventListener('change', (e) => { this.table = e.target.value; this.build() })
    feed.addEventListener('points', () => this.update())
    new ResizeObserver(() => this.fit()).observe($('charts'))
    this.show(this.span)
  }

  show(span) {
    this.span = span
    this.zoomed = false
    for (const b of $('spans').children) b.setAttribute('aria-pressed', String(Number(b.dataset.span) === span))
    text($('span-text'), spans.find(([s]) => s === span)[2])
    this.build()
  }

  tables(names) {
    const select = $('chart-table')
    if (select.dataset.names === JSON.stringify(names)) return
    select.dataset.names = JSON.stringify(names)
    put(select, h('option', { value: '' }, 'all'), names.map((n) => h('option', { value: n, selected: n === this.table }, n)))
    if (!names.includes(this.table) && this.table !== '') { this.table = ''; this.build() }
  }

  data(chart) {
    const s = this.feed.series.get(this.table) ?? {}
    return [this.feed.t.map((t) => t / 1000), ...chart.lines.map(([c]) => s[c] ?? Array(this.feed.t.length).fill(null))]
  }

  width(box) { return Math.max(box.clientWidth, 200) }

  build() {
    for (const p of this.plots) p.destroy()
    this.plots = []
    const colours = [resolved('--accent'), resolved('--behind')]
    const ink = resolved('--quiet')
    const grid = resolved('--line')
    const marks = () => this.marks(ink)
    put($('charts'), charts.map((c) => h('div', { class: 'chart' }, h('h3', {}, c.title), h('div', { class: 'plot', role: 'img', 'aria-label': c.title }))))
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' }
    charts.forEach((c, i) => {
      const box = $('charts').children[i].querySelector('.plot')
      this.plots.push(new uPlot({
        width: this.width(box),
        height: 150,
        cursor: { sync: { key: 'headpond' }, points: { size: 6 }, drag: { x: true, y: false } },
        legend: { live: true },
        scales: {
          x: { time: true, range: (u, min, max) => (this.zoomed ? [min, max] : this.window()) },
          y: { range: (u, min, max) => c.range ?? [0, Math.max(max ?? 0, 1) * 1.1] },
        },
        axes: [
          { ...axis, size: 24, values: (u, at) => at.map((s) => fmt.clock(s * 1000).slice(0, 8)), space: 80 },
          { ...axis, size: 62, values: (u, at) => at.map((v) => c.value(v)) },
        ],
        series: [
          { label: 'at', value: (u, v) => (v === null ? fmt.none : fmt.clock(v * 1000)) },
          ...c.lines.map(([, label], n) => ({ label, stroke: colours[n], width: 2, dash: dashes[n], spanGaps: false, points: { show: false }, value: (u, v) => c.value(v) })),
        ],
        hooks: {
          draw: [marks()],
          setSelect: [(u) => { if (u.select.width > 0) this.zoomed = true }],
          init: [(u) => u.over.addEventListener('dblclick', () => { this.zoomed = false; this.update() })],
          setScale: [(u, key) => { if (key === 'x' && this.zoomed) this.follow(u) }],
        },
      }, this.data(c), box))
    })
  }

  // follow: when one is zoomed the others are.
  follow(u) {
    if (this.following) return
    this.following = true
    const { min, max } = u.scales.x
    for (const p of this.plots) if (p !== u) p.setScale('x', { min, max })
    this.following = false
  }

  window() {
    const end = (this.feed.t.at(-1) ?? Date.now()) / 1000
    return [end - this.span, end]
  }

  // marks are the events, as lines with a ▼.
  marks(ink) {
    return (u) => {
      const { ctx, bbox } = u
      const worth = (this.feed.status?.events ?? []).filter((e) => !e.table || !this.table || e.table === this.table)
      ctx.save()
      ctx.strokeStyle = ctx.fillStyle = ink
      ctx.lineWidth = devicePixelRatio
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio])
      for (const e of worth) {
        const x = Math.round(u.valToPos(Date.parse(e.at) / 1000, 'x', true))
        if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue
        const s = 5 * devicePixelRatio
        ctx.beginPath()
        ctx.moveTo(x, bbox.top)
        ctx.lineTo(x, bbox.top + bbox.height)
        ctx.stroke()
        ctx.beginPath()
        ctx.moveTo(x - s, bbox.top)
        ctx.lineTo(x + s, bbox.top)
        ctx.lineTo(x, bbox.top + 1.5 * s)
        ctx.fill()
      }
      ctx.restore()
    }
  }

  update() {
    if (document.hidden) return
    charts.forEach((c, i) => this.plots[i]?.setData(this.data(c), !this.zoomed))
    if (this.zoomed) for (const p of this.plots) p.redraw()
  }

  fit() {
    for (const p of this.plots) {
      const width = this.width(p.root.parentElement)
      if (width !== p.width) p.setSize({ width, height: 150 })
    }
  }
}
