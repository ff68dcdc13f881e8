/**
 * The few pictures of the page, drawn with the current colour. In: a name. Out: an svg that screen
 * readers skip; whoever shows one also says it in words.
 */
import type { ReactNode } from 'react';

const shapes = {
  quill: 'M20 4C12.500 4.500 7.500 9 6 17l-2 4M6 17c7 .5 12.500-4 14-13M9 15c2-4 4.500-6.500 8-8.500',
  book: 'M12 6.500C10 5 7 4.500 4 4.800v13.700c3-.3 6 .2 8 1.700 2-1.500 5-2 8-1.700V4.800c-3-.3-6 .2-8 1.700zM12 6.500v13.500',
  branch: 'M7 4v10a4 4 0 0 0 4 4h5M7 9c0 0 0-2 4-2h5M14 15l3 3-3 3M14 4l3 3-3 3',
  invite: 'M10 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM3.500 20c.5-4 3-6 6.500-6 1.800 0 3.300.5 4.400 1.500M18.500 14v6M15.500 17h6',
  export: 'M12 4v11M8 11.500l4 4 4-4M5 19.500h14',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M18.700 5.300l-1.400 1.400M6.700 17.300l-1.400 1.400',
  moon: 'M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z',
  half: 'M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17zM12 3.500v17M12 7.500h6.500M12 12h8M12 16.500h6.500',
  close: 'M6 6l12 12M18 6L6 18',
  stop: 'M6.500 6.500h11v11h-11z',
  down: 'M12 5v14M6.500 13.500L12 19l5.500-5.500',
  copy: 'M9 9h10.500v10.500H9zM6 15H4.500V4.500H15V6',
  send: 'M4.500 12h13M12.500 6.500L18 12l-5.500 5.500',
  pencil: 'M4.500 19.500l1-4L16 5l3 3L8.500 18.500z',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  plus: 'M12 5v14M5 12h14',
  person: 'M12 11.500a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.500 20.500c.5-4.500 3.500-6.500 7.500-6.500s7 2 7.500 6.500',
} as const;

export type IconName = keyof typeof shapes;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }): ReactNode {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.7" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true" focusable="false">
      <path d={shapes[name]} />
    </svg>
  );
}
