/**
 * Shows text of a story as paragraphs. In: plain text; `tail` goes into the last paragraph (a caret).
 * Out: text nodes only. Called by story-text; memoised, since a page holds hundreds of them.
 */
import { Fragment, memo, type ReactNode } from 'react';
import { paragraphs, spans, type Span } from './prose';
import './prose.css';

function SpanView({ span }: { span: Span }): ReactNode {
  switch (span.style) {
    case 'em':
      return <em>{span.text}</em>;
    case 'strong':
      return <strong>{span.text}</strong>;
    case 'plain':
      return span.text;
  }
}

export const ProseView = memo(function ProseView({ text, tail }: { text: string; tail?: ReactNode }): ReactNode {
  const parts = paragraphs(text);
  // The caret needs a paragraph to stand in before the first word.
  if (parts.length === 0) parts.push('');
  return (
    <div className="prose">
      {parts.map((part, index) => (
        <p key={index}>
          {spans(part).map((span, at) => (
            <Fragment key={at}><SpanView span={span} /></Fragment>
          ))}
          {index === parts.length - 1 ? tail : null}
        </p>
      ))}
    </div>
  );
});
