/**
 * The box in a simulated page: what is sent, how, and that a draft survives a reload.
 */
import { cleanup, fireEvent, render, screen } from '@testing-library/react';
import type { ReactNode } from 'react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Composer } from './composer';
import { useDraft } from './use-draft';

const onSend = vi.fn<(text: string) => void>();
const onAsk = vi.fn<(instruction: string) => void>();
const onTyping = vi.fn<(typing: boolean) => void>();

function Page({ user = 'ana', writing = false }: { user?: string; writing?: boolean }): ReactNode {
  const draft = useDraft(user, 's');
  return (
    <>
      <Composer draft={draft} agent="Narrator" writing={writing} asking={false} onSend={onSend} onAsk={onAsk} onTyping={onTyping} />
      <button type="button" onClick={() => draft.giveBack('refused text')}>refuse</button>
    </>
  );
}
const box = (): HTMLTextAreaElement => screen.getByTestId('composer');
const type = (value: string): boolean => fireEvent.change(box(), { target: { value } });

beforeEach(() => localStorage.clear());
afterEach(() => {
  cleanup();
  vi.clearAllMocks();
});

describe('the composer', () => {
  it('sends trimmed text by button and by Ctrl+Enter, then is empty', () => {
    render(<Page />);
    type('  One night. ');
    fireEvent.click(screen.getByTestId('send'));
    type('Another.');
    fireEvent.keyDown(box(), { key: 'Enter', ctrlKey: true });
    expect(onSend.mock.calls).toEqual([['One night.'], ['Another.']]);
    expect(box().value).toBe('');
  });
  it('sends nothing that is empty, and nothing by Enter alone', () => {
    render(<Page />);
    type('   ');
    fireEvent.keyDown(box(), { key: 'Enter', metaKey: true });
    type('A line');
    fireEvent.keyDown(box(), { key: 'Enter' });
    expect(onSend).not.toHaveBeenCalled();
  });
  it('keeps the draft over a reload, for this person and no other', () => {
    const first = render(<Page />);
    type('half a sentence');
    first.unmount();
    const second = render(<Page />);
    expect(box().value).toBe('half a sentence');
    second.rerender(<Page user="ben" />);
    expect(box().value).toBe('');
    second.rerender(<Page />);
    expect(box().value).toBe('half a sentence');
  });
  it('takes a refused text back without losing what was typed meanwhile', () => {
    render(<Page />);
    type('newer');
    fireEvent.click(screen.getByText('refuse'));
    expect(box().value).toBe('refused text\n\nnewer');
  });
  it('asks the narrator, with a wish if there is one, and not while it writes', () => {
    const { rerender } = render(<Page />);
    fireEvent.click(screen.getByTestId('ask-narrator'));
    fireEvent.click(screen.getByTestId('add-instruction'));
    fireEvent.change(screen.getByTestId('instruction'), { target: { value: ' a storm ' } });
    fireEvent.click(screen.getByTestId('ask-narrator'));
    expect(onAsk.mock.calls).toEqual([[''], ['a storm']]);
    rerender(<Page writing />);
    expect(screen.getByTestId<HTMLButtonElement>('ask-narrator').disabled).toBe(true);
  });
  it('tells that one types, and that one has stopped', () => {
    render(<Page />);
    type('a');
    type('');
    expect(onTyping.mock.calls).toEqual([[true], [false]]);
  });
  it('is reached by / and n, unless one writes elsewhere', () => {
    render(<><input data-testid="elsewhere" /><Page /></>);
    fireEvent.keyDown(screen.getByTestId('elsewhere'), { key: 'n' });
    expect(document.activeElement).not.toBe(box());
    fireEvent.keyDown(document.body, { key: '/' });
    expect(document.activeElement).toBe(box());
  });
});
