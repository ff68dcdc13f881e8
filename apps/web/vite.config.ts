/**
 * How the page is built into apps/web/dist, which the server embeds, and served while developing.
 * Called by `npm run build` and `npm run dev`; a Talewire server for development is expected on port 8000
 * unless TALEWIRE says otherwise.
 */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';
import { compress } from './compress.ts';

const server = process.env['TALEWIRE'] ?? 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [react(), compress()],
  resolve: { conditions: ['talewire-source', 'module', 'browser', 'development|production'] },
  build: {
    target: 'es2022',
    // The policy of the server allows no inline scripts and no data: fonts; one file each is simplest.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      '/app': { target: server },
      '/connection': { target: server, ws: true },
      '/emulation': { target: server },
      '/poll': { target: server },
    },
  },
});
