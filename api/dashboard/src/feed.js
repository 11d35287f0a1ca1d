// The stream of events, and the history that it fills. A stream that ends is
// opened again, and the server sends what was missed.

export const kept = 900 // points, of a second each

export class Feed extends EventTarget {
  status = null
  t = [] // unix ms
  series = new Map() // '' for all tables, else the table: column → values
  heard = 0 // when anything came, by our clock
  live = false

  open() {
    const source = new EventSource('admin/v1/events')
    source.addEventListener('history', (e) => { this.merge(JSON.parse(e.data)); this.beat() })
    source.addEventListener('point', (e) => { this.merge(JSON.parse(e.data)); this.beat() })
    source.addEventListener('status', (e) => {
      this.status = JSON.parse(e.data)
      this.beat()
      this.dispatchEvent(new Event('status'))
    })
    source.onerror = () => {
      this.live = false
      this.dispatchEvent(new Event('link'))
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.open(), 2000) // refused, not broken
    }
  }

  beat() {
    this.heard = Date.now()
    if (!this.live) {
      this.live = true
      this.dispatchEvent(new Event('link'))
    }
  }

  // merge takes the points that come after those that are there.
  merge(h) {
    const last = this.t.at(-1) ?? -Infinity
    const fresh = h.t.map((t, i) => [t, i]).filter(([t]) => t > last)
    if (fresh.length === 0) return
    const had = this.t.length
    const parts = [['', h.total], ...Object.entries(h.tables ?? {})]
    const told = new Map(parts)
    for (const [name, columns] of parts) {
      if (!this.series.has(name)) this.series.set(name, {})
      const s = this.series.get(name)
      for (const c of Object.keys(columns)) s[c] ??= Array(had).fill(null)
    }
    for (const [name, s] of this.series) {
      for (const c of Object.keys(s)) for (const [, i] of fresh) s[c].push(told.get(name)?.[c]?.[i] ?? null)
    }
    for (const [t] of fresh) this.t.push(t)
    const over = this.t.length - kept
    if (over > 0) {
      this.t.splice(0, over)
      for (const s of this.series.values()) for (const c of Object.keys(s)) s[c].splice(0, over)
    }
    this.dispatchEvent(new Event('points'))
  }
}
