// Numbers and times as text.

export const none = '–'

const known = (n) => typeof n === 'number' && Number.isFinite(n)

// duration of milliseconds: 82 ms, 1.4 s, 2 min 5 s, 3 h 4 min.
export function duration(ms) {
  if (!known(ms)) return none
  if (ms < 0) ms = 0
  if (ms < 1000) return `${Math.round(ms)} ms`
  const s = ms / 1000
  if (s < 60) return `${s.toFixed(1)} s`
  const m = Math.floor(s / 60)
  if (m < 60) return `${m} min ${Math.floor(s % 60)} s`
  const h = Math.floor(m / 60)
  return h < 48 ? `${h} h ${m % 60} min` : `${Math.floor(h / 24)} d ${h % 24} h`
}

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })

export const count = (n) => (known(n) ? grouped.format(n) : none)

// short: 812, 12.3k, 4.5M.
export function short(n) {
  if (!known(n)) return none
  const a = Math.abs(n)
  if (a < 10 && a > 0 && !Number.isInteger(n)) return n.toFixed(1)
  if (a < 10_000) return grouped.format(n)
  for (const [over, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (a >= over) return (n / over).toFixed(a / over < 100 ? 1 : 0) + unit
  }
}

export function bytes(n) {
  if (!known(n)) return none
  for (const [over, unit] of [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
    if (n >= over) return `${(n / over).toFixed(1)} ${unit}`
  }
  return `${n} B`
}

export const percent = (n) => (known(n) ? `${(100 * n).toFixed(n > 0.99 && n < 1 ? 2 : 1)} %` : none)

export function clock(at) {
  const d = new Date(at)
  return Number.isNaN(d.getTime()) ? none : d.toLocaleTimeString('en-GB')
}

export const ago = (at) => {
  const ms = Date.now() - new Date(at).getTime()
  return Number.isFinite(ms) ? `${duration(Math.max(ms, 0))} ago` : none
}
