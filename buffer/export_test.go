package buffer

import "context"

// ForgetDead is what is done once a minute.
func (b *Buffer) ForgetDead(ctx context.Context) error { return b.forgetDead(ctx) }
