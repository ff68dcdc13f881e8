/**
 * A Vite plugin that writes name.br and name.gz beside each text file of the build.
 * In: the finished dist folder. Out: compressed twins, only where they are smaller. Called by vite build;
 * the server hands a twin to whoever accepts it, so that nothing is compressed while people wait.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import type { Plugin } from 'vite';

const text = /\.(html|js|css|svg|json|txt|map|webmanifest)$/;
/** Below this a compressed answer is not smaller on the wire: it is one packet either way. */
const SMALLEST_BYTES = 512;

const brotli = promisify(brotliCompress);
const zip = promisify(gzip);

export function compress(): Plugin {
  let folder = 'dist';
  return {
    name: 'talewire-compress',
    apply: 'build',
    configResolved(config) {
      folder = join(config.root, config.build.outDir);
    },
    async closeBundle() {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      for (const entry of entries) {
        if (!entry.isFile() || !text.test(entry.name)) continue;
        const file = join(entry.parentPath, entry.name);
        const bytes = await readFile(file);
        if (bytes.length < SMALLEST_BYTES) continue;
        const small = await brotli(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
        const zipped = await zip(bytes, { level: 9 });
        if (small.length < bytes.length) await writeFile(`${file}.br`, small);
        if (zipped.length < bytes.length) await writeFile(`${file}.gz`, zipped);
      }
    },
  };
}
