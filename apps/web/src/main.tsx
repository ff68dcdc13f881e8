/**
 * Starts the page. In: the document. Out: the app in #root. Called by index.html, once.
 */
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import './ui/theme.css';
import './ui/layout.css';
import { App } from './app';
import { watchKeyboardRoom } from './ui/keyboard-room';
import { applyTheme, storedTheme } from './ui/theme';

// Before the first paint, so that a chosen theme does not flash.
applyTheme(storedTheme());
watchKeyboardRoom();

const root = document.getElementById('root');
if (root === null) throw new Error('index.html has no #root');
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
