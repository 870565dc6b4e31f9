/* M1 of tests/explore/oracle.py again, for Spin: QEMU's hang with N entries, P slots, K commands
 * and variant V.
 *
 *     spin -a -DN=3 -DP=3 -DK=6 -DV=0 m1.pml
 *     gcc -O2 -DSAFETY -DNOREDUCE -DBFS -o pan pan.c && ./pan -c0
 *
 * A hang is an invalid end state, and -c0 counts them all. Spin stores two states more than the
 * oracle (the loop is left, the process has ended), and counts these two and the initial state as
 * transitions.
 *
 * What is scratch (n, and the places of q that are consumed) goes back to 0: it would make two
 * states of one.
 */
#define UNTIL_THE_FIX       (V == 0)
#define REFILL_SCHEDULES_SQ (V == 1 || V == 2)
#define HEAD_SCHEDULES_CQ   (V != 1)

byte s, kn, h;  /* rung, SQHD known, fetched */
byte f, w;      /* at the backend, finished */
byte c, r;      /* posted, reaped */
bit sb, cb;     /* the fetch step, the posting step is scheduled */
byte q[N];      /* SQHD of each completion that is posted and not reaped */
byte n;         /* scratch */

active proctype queue_pair()
{
    do
    :: d_step { (s < K && s - kn < N - 1) -> s++; sb = 1 }      /* submit */
    :: d_step { sb ->                                           /* fetch */
            n = (s - h < P - f - w -> s - h : P - f - w);
            h = h + n; f = f + n; sb = 0; n = 0 }
    :: d_step { f > 0 -> f--; w++; cb = 1 }                     /* complete */
    :: d_step { cb ->                                           /* post */
            n = (w < N - 1 - (c - r) -> w : N - 1 - (c - r));
            /* The pool is looked at before anything goes back into it. */
            if
            :: REFILL_SCHEDULES_SQ && n > 0 && P - f - w == 0 && h < s -> sb = 1
            :: else
            fi;
            w = w - n; cb = 0;
            do
            :: n > 0 -> q[c % N] = h; c++; n--
            :: else -> break
            od;
            n = 0 }                     /* not the loop: it must not be the last of a d_step */
    :: d_step { c > r ->                                        /* reap */
            n = (c - r == N - 1);
            kn = q[r % N]; q[r % N] = 0; r++;
            if
            :: n && UNTIL_THE_FIX -> sb = 1
            :: else
            fi;
            if
            :: n && HEAD_SCHEDULES_CQ -> cb = 1
            :: else
            fi;
            n = 0 }
    :: r == K && !sb && !cb -> break
    od
}
