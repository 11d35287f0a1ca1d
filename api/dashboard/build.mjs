// Bundles the page into dist/, which the program embeds.
import { build } from 'esbuild'
import { copyFile, mkdir } from 'node:fs/promises'

await mkdir('dist', { recursive: true })
await build({
  entryPoints: ['src/app.js', 'src/app.css'],
  outdir: 'dist',
  bundle: true,
  minify: true,
  format: 'esm',
  target: ['es2022'],
  legalComments: 'inline',
  logLevel: 'warning',
})
await copyFile('src/index.html', 'dist/index.html')
