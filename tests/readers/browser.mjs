// Opens one page in a headless browser; what it returns ends the browser, and then the process.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export function visit(chromium, url) {
  const profile = mkdtempSync(join(tmpdir(), 'hookpool-chromium-'))
  const flags = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-extensions',
    `--user-data-dir=${profile}`,
  ]
  const home = { ...process.env, HOME: profile, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile }
  const browser = spawn(chromium, [...flags, url], { stdio: 'ignore', env: home })
  browser.on('error', (error) => {
    console.error(`no browser: ${error.message}`)
    process.exit(1)
  })
  let ending = false
  browser.on('exit', async (code, signal) => {
    await remove(profile)
    if (!ending) console.error(`the browser ended: ${code ?? signal}`)
    process.exit(ending ? 0 : 1)
  })
  return () => {
    ending = true
    browser.kill('SIGTERM')
  }
}

// Helpers of a browser that has ended may write for a moment longer: what is new is then removed as well, which `maxRetries` does not do.
async function remove(folder) {
  for (let left = 50; ; left--) {
    try {
      return rmSync(folder, { recursive: true, force: true })
    } catch (error) {
      if (left === 0 || error.code !== 'ENOTEMPTY') throw error
    }
    await pause(200)
  }
}
