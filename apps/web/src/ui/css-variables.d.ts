/**
 * Lets a style prop carry custom properties, which is how components hand numbers to their stylesheets.
 * Read by the compiler alone.
 */
import 'react';

declare module 'react' {
  interface CSSProperties {
    [name: `--${string}`]: string | number | undefined;
  }
}
