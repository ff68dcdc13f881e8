/**
 * Saves the story as Markdown. In: a story, the branch one reads, and the HTTP of one's login (a link alone
 * could not carry a tab's token). Out: a file in the downloads. Called by the story's bar.
 */
import type { Http } from '@talewire/client';
import type { ReactNode } from 'react';
import { Icon } from '../../ui/icon';
import { useAction } from '../../ui/notices';

export function fileName(title: string): string {
  const plain = title.normalize('NFKD').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60).toLowerCase();
  return `${plain === '' ? 'story' : plain}.md`;
}

export function ExportButton({ http, story, branch, title }: { http: Http; story: string; branch: string; title: string }): ReactNode {
  const save = useAction(async () => {
    const response = await http.raw('GET', `/app/stories/${encodeURIComponent(story)}/export.md?branch=${encodeURIComponent(branch)}`);
    if (!response.ok) throw new Error(`The export was refused (${response.status}).`);
    const address = URL.createObjectURL(await response.blob());
    const link = document.createElement('a');
    link.href = address;
    link.download = fileName(title);
    link.click();
    // The browser has taken the file by then; without this it would stay in memory.
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  });
  return (
    <button type="button" className="icon-button" onClick={() => save.run()} disabled={save.busy} aria-label="Export to Markdown" title="Export to Markdown" data-testid="export">
      <Icon name="export" />
    </button>
  );
}
