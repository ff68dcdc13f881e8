/**
 * Where one writes. In: the draft, and what the page can do with it. Out: a turn to send, a request to
 * the narrator, and word that one is typing. Called by the story's page.
 */
import { useEffect, useLayoutEffect, useRef, useState, type SyntheticEvent, type KeyboardEvent, type ReactNode } from 'react';
import { Icon } from '../../ui/icon';
import type { Draft } from './use-draft';
import { useFocusKeys } from './use-focus-keys';
import './composer.css';

/** After this pause one is thinking, not typing. */
const THINKING_AFTER_MS = 3000;
const TALLEST_PX = 320;

export function Composer(props: {
  draft: Draft;
  /** The narrator's name, and whether it already writes here. */
  agent: string;
  writing: boolean;
  asking: boolean;
  onSend: (text: string) => void;
  onAsk: (instruction: string) => void;
  onTyping: (typing: boolean) => void;
}): ReactNode {
  const box = useRef<HTMLTextAreaElement>(null);
  const thinking = useRef<ReturnType<typeof setTimeout>>(undefined);
  const [wish, setWish] = useState<string | undefined>();
  const { draft, onTyping } = props;
  const text = draft.text.trim();
  useFocusKeys(box);

  // As tall as its words, up to a limit: measured, since field-sizing is not everywhere.
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(element.scrollHeight + 2, TALLEST_PX)}px`;
  }, [draft.text]);

  useEffect(() => () => {
    clearTimeout(thinking.current);
    onTyping(false);
  }, [onTyping]);

  const change = (value: string): void => {
    draft.setText(value);
    clearTimeout(thinking.current);
    onTyping(value.trim() !== '');
    thinking.current = setTimeout(() => onTyping(false), THINKING_AFTER_MS);
  };
  const send = (): void => {
    if (text === '') return;
    clearTimeout(thinking.current);
    onTyping(false);
    props.onSend(text);
    draft.setText('');
    box.current?.focus();
  };
  const keys = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  };
  const ask = (event?: SyntheticEvent): void => {
    event?.preventDefault();
    if (props.writing || props.asking) return;
    props.onAsk((wish ?? '').trim());
    setWish(undefined);
  };

  return (
    <div className="composer">
      <label className="sr-only" htmlFor="composer">Write what happens next</label>
      <textarea
        id="composer"
        ref={box}
        className="composer-box"
        data-testid="composer"
        rows={1}
        value={draft.text}
        placeholder="Write what happens next…"
        onChange={(event) => change(event.target.value)}
        onKeyDown={keys}
        onBlur={() => onTyping(false)}
        aria-describedby="composer-hint"
      />
      {wish !== undefined && (
        <form className="composer-wish" onSubmit={ask}>
          <label className="sr-only" htmlFor="wish">A wish for {props.agent}</label>
          <input id="wish" className="input" autoFocus value={wish} onChange={(event) => setWish(event.target.value)} onKeyDown={(event) => event.key === 'Escape' && setWish(undefined)} placeholder={`A wish for ${props.agent}: “let the storm break”`} data-testid="instruction" maxLength={500} />
        </form>
      )}
      <div className="composer-actions">
        <span className="composer-ask">
          <button type="button" className="button button-agent" onClick={() => ask()} disabled={props.writing || props.asking} data-testid="ask-narrator">
            <Icon name="quill" size={18} />
            <span>{props.writing ? 'Writing…' : props.asking ? 'Asking…' : wish === undefined ? 'Ask the narrator' : 'Ask with this wish'}</span>
          </button>
          <button type="button" className="icon-button" onClick={() => setWish(wish === undefined ? '' : undefined)} aria-expanded={wish !== undefined} aria-label={wish === undefined ? 'Add a wish for the narrator' : 'Ask without a wish'} title={wish === undefined ? 'Add a wish' : 'Without a wish'} data-testid="add-instruction">
            <Icon name={wish === undefined ? 'plus' : 'close'} size={18} />
          </button>
        </span>
        <span id="composer-hint" className="composer-hint soft">{navigatorIsMac() ? '⌘' : 'Ctrl'} + Enter sends</span>
        <button type="button" className="button button-primary" onClick={send} disabled={text === ''} data-testid="send">
          Send <Icon name="send" size={18} />
        </button>
      </div>
    </div>
  );
}

function navigatorIsMac(): boolean {
  return /Mac|iPhone|iPad/.test(navigator.userAgent);
}
